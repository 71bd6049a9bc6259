"""The report in a real browser: on a phone without scrolling sideways, and on paper."""

import re
from dataclasses import replace

import heart_with_territories
import pytest
import real_browser
from negative_result import make_negative

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.report.page import result_as_html

pytestmark = real_browser.NEEDED

DOUBTS = (ScanWarning("contrast-enhanced", "The blood is bright."),)
LONG = ScanWarning("metal", f"8 lesions are metal: {', '.join(f'slice {k}' for k in range(40))}. They are excluded.")


@pytest.fixture(scope="module")
def positive():
    result = heart_with_territories.score()
    return result.stating(warnings=(*result.warnings, LONG, *DOUBTS))


@pytest.fixture(scope="module")
def chromium():
    with real_browser.chromium() as browser:
        yield browser


@pytest.fixture
def show(chromium):
    """Opens a result's report; returns the page."""
    pages = []

    def show(result, width=1280):
        pages.append(chromium.new_page(viewport={"width": width, "height": 844}))
        pages[-1].set_content(result_as_html(result))
        return pages[-1]

    yield show
    for page in pages:
        page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(show, positive, width):
    for result in (positive, make_negative((0.2, 0.1, 0.15))):
        page = show(result, width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.eval_on_selector(".scores", "table => table.offsetWidth <= table.parentElement.clientWidth")
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == width, "with all sections open"


def test_paper_shows_colours_and_whole_warnings_and_of_folded_sections_the_lists(show, positive):
    page = show(positive)
    page.emulate_media(media="print")
    adjust = "nodes => nodes.map(node => getComputedStyle(node).printColorAdjust)"
    assert set(page.eval_on_selector_all(".dot", adjust)) == {"exact"}
    cut = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth).length"
    assert page.eval_on_selector_all(".glance summary", cut) == 0
    assert page.get_by_text("They are excluded.").is_visible()
    headings = "nodes => nodes.filter(node => node.checkVisibility()).map(node => node.textContent)"
    outside, lesions = page.eval_on_selector_all("details.section > summary", headings)
    assert outside.startswith("Calcium outside the coronary arteries: aortic valve")
    assert lesions == "All lesions"
    assert page.locator(".listing").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.get_by_text("Faint outlines are the territories").first.is_visible()
    assert not page.get_by_text("To correct the lesions in the browser").is_visible(), "paper has no links"


def test_a_usual_reviewed_report_fits_a_page(show, positive):
    reviewed = replace(positive.methods["threshold"], status="reviewed")
    # The scan is so small that its calcium makes slices unlike their neighbours.
    result = positive.stating(methods=positive.methods | {"threshold": reviewed}, warnings=(LONG, *DOUBTS))
    pdf = show(result).pdf(format="A4")
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 1
