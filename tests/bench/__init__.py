"""Benchmarks that start everything they need: `python -m tests.bench --help`."""
