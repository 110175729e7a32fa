"""The background worker: when each job of `models` runs."""
