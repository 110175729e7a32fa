"""What all races share."""

import pytest


@pytest.fixture(autouse=True)
def cheaply(cheap_hashes: None) -> None:
    """What a password costs is not raced here."""
