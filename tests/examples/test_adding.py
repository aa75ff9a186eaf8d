"""Listings of docs/ADDING.md are parts of the example files, which the other tests of this folder run."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

LISTINGS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ADDING.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))}


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.splitlines()[0])
def test_a_listing_is_part_of_an_example(listing: str) -> None:
    assert any(listing.strip() in text for text in EXAMPLES.values())


def test_every_example_is_shown() -> None:
    assert {name for name, text in EXAMPLES.items() if any(listing.strip() in text for listing in LISTINGS)} == set(
        EXAMPLES
    )
