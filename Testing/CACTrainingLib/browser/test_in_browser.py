"""Test the review's page in a real browser: a cohort of three is read by keys and pointer.

Screenshots of every page, on a desktop, a tablet and a phone, and dark on a desktop, go to the folder CAC_SCREENSHOTS.
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import automatic_patient
import pytest
import real_browser

pytestmark = real_browser.NEEDED

SIZES = {
    "desktop": {"width": 1440, "height": 900},
    "laptop": {"width": 1366, "height": 657},
    "tablet": {"width": 820, "height": 1180},
    "phone": {"width": 390, "height": 844},
}

PATIENCE_MS = 120_000
"""Longest wait for the page, generous for a busy machine."""


@pytest.fixture(scope="module")
def chromium():
    with real_browser.chromium() as browser:
        yield browser


class Reader:
    """Reader at a page."""

    def __init__(self, page, server, name="Ann"):
        self.page = page
        self.errors = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(server.addresses[name])
        page.wait_for_selector("#scans tbody tr")

    def open(self, name):
        self.page.click(f"#scans a:text-is('{name}')")
        self.ready(name)

    def ready(self, name):
        self.page.wait_for_selector(f"h1:text-is('{name}')")
        self.page.wait_for_selector("body[data-first-slice][data-version]")

    @property
    def version(self):
        return int(self.page.get_attribute("body", "data-version"))

    @contextmanager
    def one_change(self):
        """Wait until the review has changed once."""
        before = self.version
        yield
        self.page.wait_for_selector(f"body[data-version='{before + 1}']")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def change(self, *keys):
        with self.one_change():
            self.press(*keys)

    def total(self):
        return float(self.page.inner_text("#totals tr.total td:nth-child(2)").replace(",", ""))

    def lesions_of(self, name):
        """Return the number of lesions of an artery."""
        return self.page.locator(f"#lesions td:nth-child(2):has-text('{name}')").count()

    def headline(self):
        return self.page.inner_text("#headline")

    def message(self):
        self.page.wait_for_selector("#message:not([hidden])")
        return self.page.inner_text("#message")

    def at(self, k, j, i):
        """Show a voxel's slice with the whole heart in view; return the voxel's position on the page."""
        self.press("f")
        now = int(self.page.input_value("#slice"))
        self.press(*["ArrowUp" if k > now else "ArrowDown"] * abs(k - now))
        self.page.wait_for_function("k => document.querySelector('#slice').value === k", arg=str(k))
        self.drawn()
        canvas = self.page.locator("#views canvas").first
        sx, sy, x, y = map(float, canvas.get_attribute("data-frame").split(","))
        box = canvas.bounding_box()
        ratio = canvas.evaluate("canvas => canvas.width") / box["width"]
        return box["x"] + ((i + 0.5) * sx + x) / ratio, box["y"] + ((j + 0.5) * sy + y) / ratio

    def drawn(self):
        """Wait until the page is drawn: a frame is drawn before the next one is asked for."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def drag(self, start, end):
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=3)
        mouse.move(*end, steps=3)
        mouse.up()


@pytest.fixture
def reader(chromium, start):
    sessions = []

    def come_in(server, name="Ann", **options):
        context = chromium.new_context(**{"viewport": SIZES["desktop"], **options})
        sessions.append((context, Reader(context.new_page(), server, name)))
        return sessions[-1][1]

    yield come_in
    for context, reader in sessions:
        assert reader.errors == []
        context.close()


@pytest.fixture
def ann(reader, start):
    """Ann, at the work list."""
    return reader(start("--reader", "Ann"))


def test_the_lesion_that_decides_is_asked_about_with_both_totals(ann):
    ann.open("two")
    row = "#lesions tbody tr:has(button:text-is('{}'))"
    for number in (1, 2, 4, 5):
        ann.page.click(row.format(number))
        ann.change("x")
    assert ann.page.inner_text("#question").startswith("Is lesion 7 (LCX, slices ")
    assert [ann.page.inner_text(f"#{name}") for name in ("counted", "not-counted")] == ["Yes: 2,916", "No: 2,268"]
    ann.page.click(row.format(7))
    assert "Coronary calcium with 89% by the networks, 33 points above the limit" in ann.page.inner_text("#why")
    with ann.one_change():
        ann.page.click("#counted")
    assert (ann.headline(), ann.page.is_visible("#decision")) == ("Agatston 2,916", False)
    ann.change("z")
    with ann.one_change():
        ann.page.click("#not-counted")
    assert ann.headline() == "Agatston 2,268 or 1,782"
    assert ann.page.inner_text("#question").startswith("Is lesion 3 (LAD, ")
    ann.page.wait_for_selector("#lesions tr.chosen button:text-is('3')")


def test_a_refused_decision_leaves_the_selected_lesion(ann):
    ann.open("two")
    row = "#lesions tbody tr:has(button:text-is('{}'))"
    for number in (1, 2, 4, 5):
        ann.page.click(row.format(number))
        ann.change("x")
    ann.page.click(row.format(9))
    ann.page.route("**/act", lambda route: route.fulfill(status=409, json={"error": "Changed elsewhere."}))
    with ann.page.expect_response("**/act"):
        ann.page.click("#counted")
    ann.page.wait_for_selector("#message:not([hidden])")
    ann.drawn()
    assert ann.page.locator("#lesions tr.chosen button").first.inner_text() == "9"


def test_lesions_are_reassigned_rejected_and_added(ann):
    ann.open("two")
    lad, rca = ann.lesions_of("LAD"), ann.lesions_of("RCA")
    ann.page.click("#lesions tbody tr:has(button:text-is('1'))")
    ann.change("4")
    assert (ann.lesions_of("LAD"), ann.lesions_of("RCA")) == (lad - 1, rca + 1)
    before = ann.total()
    ann.press("n")
    ann.change("x")
    assert ann.total() < before
    ann.press("n")
    ann.page.wait_for_selector("#lesions tr.rejected + tr.chosen")
    ann.page.locator("#lesions tr.rejected").click()
    with ann.one_change():
        ann.page.click("#reject")
    assert (ann.page.locator("#lesions tr.rejected").count(), ann.total()) == (0, before)
    # A click on a dashed candidate adds it.
    left_out = ann.page.locator("#lesions tr.left-out").count()
    out = automatic_patient.places()[automatic_patient.LESIONS.index(True, 9)]
    before = ann.total()
    with ann.one_change():
        ann.page.mouse.click(*ann.at(out[0], out[1] + 1, out[2] + 1))
    assert ann.total() > before
    assert ann.page.locator("#lesions tr.left-out").count() == left_out - 1


def test_a_scan_opens_on_the_lesion_that_changes_most_with_the_patients_sides(ann):
    ann.open("one")
    k, j, i = automatic_patient.places()[8]  # the faintest that counts
    assert int(ann.page.input_value("#slice")) == k
    canvas = ann.page.locator("#views canvas[data-frame]").first
    sx, sy, x, y = map(float, canvas.get_attribute("data-frame").split(","))
    width, height = canvas.evaluate("canvas => [canvas.width, canvas.height]")
    assert abs((i + 1) * sx + x - width / 2) < width / 10
    assert abs((j + 1) * sy + y - height / 2) < height / 10
    spacing = canvas.evaluate("canvas => document.body.dataset.spacing").split(",")
    assert min(width / sx * float(spacing[0]), height / sy * float(spacing[1])) == pytest.approx(90, abs=1)
    assert canvas.get_attribute("data-sides") == "R,L,A,P"


def test_undo_in_the_browser_shows_the_changed_lesion(ann):
    ann.open("two")
    ann.page.click("#lesions tbody tr:has(button:text-is('9'))")
    ann.change("4")  # as suggested, so that the map does not change
    ann.press("m")
    assert (ann.page.inner_text("#reviewed"), ann.page.inner_text("#looked")[:5]) == ("Confirm map", "Map: ")
    ann.change("z")
    ann.page.wait_for_selector("#lesions tr.chosen button:text-is('9')")
    assert ann.page.input_value("#method") == "threshold"


def test_lesions_are_painted_and_cut(ann):
    """Erase a part of a lesion, paint it as circumflex, undo, and cut the lesion for the left main."""
    ann.open("one")
    k, j, i = automatic_patient.places()[0]
    before, lcx = ann.total(), ann.lesions_of("LCX")
    stroke = ann.at(k, j, i), ann.at(k, j, i + 2)
    ann.press("e")
    ann.page.fill("#radius", "1")
    ann.page.keyboard.press("Tab")
    with ann.one_change():
        ann.drag(*stroke)
    assert ann.total() < before
    ann.page.select_option("#site", label="LCX")
    ann.page.click("[data-tool=brush]")
    with ann.one_change():
        ann.drag(*stroke)
    assert ann.lesions_of("LCX") == lcx + 1
    for _ in range(2):
        ann.change("z")
    assert ann.total() == before
    ann.press("s")
    ann.page.mouse.click(*stroke[0])
    ann.press("c")
    x, y = ann.at(k, j, i + 1)
    ann.drag((x, y - 60), (x, y + 60))
    assert "press 1 to 9" in ann.message()
    ann.change("1")
    assert ann.lesions_of("LM") == 1


def test_a_cohort_of_three_is_read(ann, results):
    ann.open("one")
    assert ann.total() == 5508.0
    ann.change("a")
    assert "reviewed" in ann.page.inner_text("#status")
    ann.page.click("#export")
    assert "reviewed" in ann.message()
    assert (results / "one" / "reviewed" / "scores.json").is_file()
    ann.press("PageDown")
    ann.ready("two")
    ann.change("4")
    ann.change("r")
    assert "reviewed" in ann.page.inner_text("#status")
    # A reload in the middle of the work keeps everything.
    version, total = ann.version, ann.total()
    ann.page.reload()
    ann.ready("two")
    assert (ann.version, ann.total()) == (version, total)
    ann.change("z")
    ann.change("y")
    ann.press("PageDown")
    ann.ready("three")
    ann.change("0")
    assert ann.headline() == "Agatston 0"
    assert "no coronary calcium" in ann.page.inner_text("#status")
    ann.press("PageDown")
    assert "last scan" in ann.message()
    ann.page.click("header a")
    ann.page.wait_for_selector("#scans tbody tr")
    assert "3 reviewed" in ann.page.inner_text("#count")
    ann.page.select_option("#state", "new")
    assert ann.page.locator("#scans tbody tr").count() == 0


def test_confirming_asks_about_lesions_never_shown(ann, results):
    ann.open("one")
    count, questions = ann.page.locator("#lesions tbody tr").count(), []
    ann.page.on("dialog", lambda dialog: questions.append(dialog.message))
    ann.page.wait_for_selector("body[data-looked]:not([data-looked='0'])")
    ann.change("a")
    looked, count_in_text = map(int, re.match(r"(\d+) of (\d+) candidates looked at", questions[0]).groups())
    assert count_in_text == count
    assert int(ann.page.inner_text("#looked").split()[0]) >= looked
    assert 0 < looked < count
    part = f"{looked} of {count} candidates looked at"
    assert questions[0].startswith(f"{part}. Never shown: {count - looked}. Confirm the score?")
    assert part in ann.page.inner_text("#status")
    for _ in range(3 * count):
        ann.press("n")
        ann.drawn()
        ann.page.wait_for_selector("body[data-looked]")
        if ann.page.inner_text("#looked").startswith(f"{count} of"):
            break
    assert ann.page.inner_text("#looked") == f"{count} of {count} candidates looked at by now"
    ann.change("a")
    assert ann.page.inner_text("#looked") == f"{count} of {count} candidates looked at"
    assert len(questions) == 1, "all were shown"
    assert ann.page.inner_text("#status") == "reviewed by Ann"


def test_double_reading(reader, start):
    server = start("--double", "--reader", "Ann", "--reader", "Bob")
    ann, bob = reader(server, "Ann"), reader(server, "Bob")
    for active, key in ((ann, "1"), (bob, "4")):
        active.open("one")
        active.change(key)
        active.change("a")
    ann.page.click("header a")
    ann.page.click("#scans td.double a")
    ann.page.wait_for_selector("body[data-first-slice][data-version]")
    assert "consensus" in ann.page.inner_text("#reader")
    assert ann.page.locator("#lesions tr.left-out").count() > bob.page.locator("#lesions tr.left-out").count()
    ann.press("a")
    assert "disagree" in ann.message()
    assert ann.page.locator("#lesions tr.chosen").inner_text().split()[1:4] == ["to", "be", "decided"]
    ann.change("1")
    ann.change("a")
    bob.page.click("header a")
    bob.page.wait_for_selector("#scans tbody tr")
    assert bob.page.inner_text("#scans tbody tr:first-child td.double") == "reviewed"
    assert bob.page.inner_text("#agreement tbody td:nth-child(2)") == "1"


def test_blind_list_offers_no_hidden_filter_or_order(reader, start):
    ann = reader(start("--double", "--blind", "--reader", "Ann", "--reader", "Bob"))
    offered = [name for name in ("text", "state", "category", "warned", "order") if ann.page.is_visible(f"#{name}")]
    assert offered == ["text", "state"]


def test_all_by_keyboard(ann):
    ann.page.focus("#start")
    ann.press("Enter")
    ann.ready("one")
    before = ann.total()
    # The cursor begins at the selected lesion; the eraser is used there.
    ann.press("e", "Shift+ArrowRight", "Shift+ArrowDown")
    ann.change("Enter")
    assert ann.total() < before
    ann.press("?")
    assert ann.page.is_visible("#help")
    ann.press("Escape")
    assert not ann.page.is_visible("#help")


def test_pages_are_accessible_and_fit(reader, start, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    server = start("--double", "--reader", "Ann", "--reader", "Bob")
    folder = Path(os.environ.get("CAC_SCREENSHOTS", tmp_path))

    def look(ann, name):
        ann.page.wait_for_function("document.getAnimations().every(change => change.playState === 'finished')")
        ann.page.evaluate("document.fonts.ready.then(() => true)")
        ann.drawn()
        ann.page.screenshot(path=folder / f"{name}.png")
        violations = Axe().run(ann.page).response["violations"]
        serious = [v for v in violations if v["impact"] in ("serious", "critical")]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in serious] == []
        assert ann.page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")

    for size, scheme in (*((size, "light") for size in SIZES), ("desktop", "dark")):
        ann = reader(server, viewport=SIZES[size], color_scheme=scheme, has_touch=size in ("tablet", "phone"))
        kind = f"{size}-{scheme}"
        look(ann, f"list-{kind}")
        ann.open("one")
        look(ann, f"scan-{kind}")
        assert ann.page.eval_on_selector("#warned", "box => box.scrollHeight <= box.clientHeight")
        if size == "laptop":
            rows = "box => box.parentElement.clientHeight / box.querySelector('tbody tr').offsetHeight"
            assert ann.page.eval_on_selector("#lesions", rows) > 7, "six rows and their titles"
            assert ann.page.eval_on_selector("#totals", "all => all.scrollWidth <= all.parentElement.clientWidth")
        ann.press("l")
        widths = ann.page.eval_on_selector_all("#views figure", "all => all.map(one => one.clientWidth / innerWidth)")
        assert len(widths) > 1
        assert min(widths) > 0.9 / len(widths)
        look(ann, f"linked-{kind}")
        ann.press("l", "v")
        ann.page.wait_for_selector("body[data-planes]")
        look(ann, f"planes-{kind}")
        ann.press("v", "?")
        look(ann, f"help-{kind}")
        ann.page.close()
