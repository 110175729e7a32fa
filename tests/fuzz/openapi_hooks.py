"""What schemathesis has to know beyond the OpenAPI document, for its process: `SCHEMATHESIS_HOOKS`."""

import unicodedata
from typing import Any

import schemathesis

_NOT_IN_THE_PATTERN = {"Cn", "Co"}
"""Unassigned and private characters: refused in usernames, which the document only tells, not in its pattern."""


@schemathesis.hook
def map_body(_context: schemathesis.HookContext, body: Any) -> Any:
    """Exchange such characters in a username for one that the pattern takes as well: valid and invalid stay so."""
    if isinstance(body, dict) and isinstance(name := body.get("username"), str):
        spelt = ("x" if unicodedata.category(letter) in _NOT_IN_THE_PATTERN else letter for letter in name)
        return body | {"username": "".join(spelt)}
    return body
