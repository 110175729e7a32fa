"""The commands of `gatehouse`, one noun a file: parse, one call of the domain, print."""
