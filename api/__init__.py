"""HTTP and command line: parse, call `models`, answer. No rules of its own."""
