"""The routes, one file a noun: parse, one call, answer."""
