"""Faults, races and attacks at full count: `make soak`. The same scenarios run in short form in `make test`."""
