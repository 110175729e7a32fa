"""The tables of docs/scale.md are those that follow from what was measured."""

from tests.docs.markdown import ROOT
from tests.scale.page import filled, read


def test_the_page_shows_what_was_measured_and_foreseen() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    assert page == filled(page, read()), "write its tables anew: python -m tests.scale.page"
