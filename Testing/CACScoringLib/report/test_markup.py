"""The builder of HTML: nothing but its own elements is markup, however texts are put together."""

import base64
import re

import pytest

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.report import markup
from CACScoringLib.report.markup import facts_table, figure, fragment, group, lines, page, row, table, tag

NASTY = "<script>alert('x')</script>&\""


def test_an_element_holds_elements_texts_and_numbers_in_their_order():
    made = tag.p("a < b ", tag.b("bold"), None, [" and ", (2, " & "), (tag.i(x) for x in "yz")], class_="small")
    assert made == '<p class="small">a &lt; b <b>bold</b> and 2 &amp; <i>y</i><i>z</i></p>'


def test_what_has_no_end_is_not_closed():
    assert fragment(tag.br(), tag.img(alt="", src="x")) == '<br><img alt="" src="x">'


def test_an_attribute_is_escaped_and_none_is_left_out():
    assert tag.a("x", href='"><b>', id=None) == '<a href="&quot;&gt;&lt;b&gt;">x</a>'


@pytest.mark.parametrize(
    "child",
    [
        NASTY,
        f"{tag.b('own')} {NASTY}",
        tag.b("own") + NASTY,
        " ".join([tag.b("own"), NASTY]),
        [NASTY],
        iter([(NASTY,)]),
    ],
)
@pytest.mark.parametrize("put", [tag.p, fragment, row, lambda child: tag.p(title=child)])
def test_no_text_becomes_an_element(child, put):
    assert "<script" not in put(child)


@pytest.mark.parametrize(
    "made",
    [
        lambda: page(NASTY, tag.h1(NASTY)),
        lambda: facts_table({NASTY: NASTY}),
        lambda: figure(b"jpeg", NASTY),
        lambda: table([group(NASTY, 2)], NASTY),
        lambda: lines([NASTY, NASTY]),
        lambda: markup.warning_list([ScanWarning("code", NASTY, severe=False)]),
        lambda: markup.items([NASTY]),
    ],
)
def test_every_part_escapes(made):
    assert "script" in made()
    assert "<script" not in made()


def test_what_is_no_text_and_no_list_is_refused():
    with pytest.raises(TypeError):
        tag.p(object())


def test_a_space_that_must_not_break_is_seen_in_the_source():
    assert tag.p("95\xa0%") == "<p>95&nbsp;%</p>"


def test_facts():
    made = facts_table({"kvp": None, "bounds": (130, 200), "models": lines(["a", "b"])}, missing="none")
    assert re.findall("<td>(.*?)</td>", made) == ["kvp", "none", "bounds", "(130, 200)", "models", "a<br>b"]


def test_a_picture_lies_in_the_page():
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', figure(b"jpeg", "Slice 3"))
    assert base64.b64decode(found[1]) == b"jpeg"


def test_a_page_is_whole_and_needs_no_other_file():
    made = page("A & B", tag.h1("A & B"), None)
    assert made.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "<title>A &amp; B</title><style>\nbody {" in made
    assert "<main>\n<h1>A &amp; B</h1>\n" in made
    assert made.endswith("</main></body></html>\n")
    assert not re.search(r"@import|url\(|<link|&gt;", made)
