"""Parsers on made-up input by the million: each answers, or refuses in its own words."""
