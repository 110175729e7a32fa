"""The documents held against the code: their commands are run, their tables compared, their links followed."""
