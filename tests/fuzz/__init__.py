"""What anybody can send or set, made up by the million: each parser answers, refuses in its own words, or has a fault."""
