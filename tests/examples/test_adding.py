"""Listings of docs/ADDING.md for optimizers and tasks match the example files, which other tests run."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "ADDING.md").read_text(encoding="utf-8")
LISTINGS = re.findall(r"```python\n(.*?)```", PAGE[PAGE.index("## An optimizer") :], re.DOTALL)
EXAMPLES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))}


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.splitlines()[0])
def test_a_listing_is_part_of_an_example(listing: str) -> None:
    assert any(listing.strip() in text for text in EXAMPLES.values())


def test_every_example_is_on_the_page() -> None:
    assert len(LISTINGS) == 4
    assert all(f"(../examples/{name})" in PAGE for name in EXAMPLES)
