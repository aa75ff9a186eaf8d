"""report.html in a browser: no errors, sorting, zooming, narrow and dark pages; text never becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slowfast.engine.tasks.classification import Classification
from slowfast.visualization.html_report.page import write_report
from slowfast.visualization.html_report.run_files import RunStatus
from tests.chromium import MISSING, Chromium, find_chromium, running_chromium
from tests.report_content import write_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_chromium() is None, reason=MISSING)]

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
CLASSES = 150
# Endings of scripts: a changed box, and a pointer over an element.
_CHANGE = "box.dispatchEvent(new Event('input')); box.dispatchEvent(new Event('change')) }"
_MOVE = (
    "const box = one.getBoundingClientRect(); const place = {clientX: box.left + x, clientY: box.top + y}; "
    "one.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, ...place})) }"
)
SECTIONS = ["summary", "curves", "confusion", "per-class", "mistakes", "activity", "videos", "failures", "config"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    assert program is not None
    with running_chromium(program) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run whose class, camera and file names and config values are markup."""
    folder = tmp_path_factory.mktemp("report") / "<b>run & co"
    write_run(folder, [f"{HOSTILE} {n}" for n in range(CLASSES)])
    return write_report(folder, Classification.reported_metrics(), RunStatus.RUNNING)


def test_it_opens_sorts_and_zooms(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri())
    assert browser.messages == []
    assert browser.run("[...document.querySelectorAll('section')].map((one) => one.id)") == SECTIONS
    assert browser.run("document.title").startswith("<b>run & co")
    assert browser.run("document.querySelector('h1').textContent") == "<b>run & co"
    assert browser.run("document.querySelectorAll('b:not(.good):not(.bad), img[onerror]').length") == 0
    loaded = "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).length"
    assert browser.run(loaded) == 0
    assert "Run in progress" in browser.run("document.querySelector('header').innerText")

    column = "[...document.querySelectorAll('#per-class tbody tr')].map((row) => row.cells[4].textContent)"
    head = "document.querySelectorAll('#per-class th')[4]"
    for direction, reverse in (("descending", True), ("ascending", False)):
        browser.run(f"{head}.querySelector('button').click()")
        values = [float(value) for value in browser.run(column)]
        assert len(values) == 100 and values == sorted(values, reverse=reverse) and len(set(values)) > 1
        assert browser.run(f"{head}.getAttribute('aria-sort')") == direction
    browser.run("document.querySelector('#per-class .sortable > button').click()")
    assert len(browser.run(column)) == CLASSES
    browser.run("{ const box = document.querySelector('#per-class input'); box.value = '149'; " + _CHANGE)
    assert len(browser.run(column)) == 2  # the class, and the class it is confused with

    picture = "document.querySelector('.matrix canvas').toDataURL()"
    whole = browser.run(picture)
    browser.run("document.querySelector('#confusion tr.choice').click()")
    zoomed = browser.run(picture)
    browser.run("document.querySelector('#confusion button[title=\"Zoom in\"]').click()")
    assert len({whole, zoomed, browser.run(picture)}) == 3
    browser.run("document.querySelector('#confusion button[title=\"Show all classes\"]').click()")
    assert browser.run(picture) == whole
    browser.run("{ const box = document.querySelector('#confusion select'); box.selectedIndex = 3; " + _CHANGE)
    assert browser.run(picture) != whole

    for element, x, y, part in (
        ("#curves svg", 200, 60, "validation: 3 (epoch 1)"),
        ("#confusion .matrix canvas", 300, 200, "of the label"),
        ("#activity .heat", 5, 5, "computed in 0 % of the frames"),
    ):
        browser.run(f"{{ const [one, x, y] = [document.querySelector('{element}'), {x}, {y}]; {_MOVE}")
        tip = f"document.querySelector('{element}').closest('section').querySelector('.tip:not([hidden])')"
        assert part in browser.run(f"{tip}.innerText")
    assert browser.messages == [] and "hacked" not in browser.run("document.title")[9:]


def test_it_fits_a_phone_and_follows_the_dark_mode(browser: Chromium, page: Path) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    browser.open(page.as_uri())
    assert min(browser.run(brightness)) > 200
    browser.open(page.as_uri(), width=390, height=844, dark=True)
    assert max(browser.run(brightness)) < 60
    assert browser.messages == [] and browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('.matrix canvas').clientWidth") < 390


def test_content_of_another_structure_costs_its_part_only(browser: Chromium, page: Path) -> None:
    for name in ("event_activity.json", "mistakes/mistakes.json", "event_results.json", "per_class.json"):
        (page.parent / name).write_text('[{"name": 1}, 2]' if "results" not in name else '{"videos": [{"active": 1}]}')
    browser.open(write_report(page.parent, Classification.reported_metrics()).as_uri())
    shown = "[...document.querySelectorAll('.warning')].map((one) => one.textContent)"
    problems = ["results per video cannot be shown", "mistakes/None cannot be read", "This part", "This part"]
    texts = browser.run(shown)
    assert len(texts) == len(problems) and all(map(str.startswith, texts, problems)), texts
    assert browser.messages == [] and browser.run("document.querySelectorAll('section').length") == 7
