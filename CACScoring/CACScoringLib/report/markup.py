"""The builder of all HTML of CAC: text is escaped unless an element of this module holds it; one page, one look.

`tag.p("a < b", tag.b("bold"))` is a paragraph. Children are elements, which stay as they are, and texts and numbers,
which are escaped; None is left out, and lists of children are decomposed. Attributes are keywords, `class_` for class.
An element is a str, but a str that is made from it (by an f-string, by `+`, by `join`) is plain text again and is
escaped in its turn: what is put together carelessly is shown wrongly, never run.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.ct import ScanWarning

VOID = ("br", "img", "meta")
"""Elements without an end."""


class Markup(str):
    """A piece of HTML."""

    __slots__ = ()


class _Tags:
    def __getattr__(self, name: str) -> Callable[..., Markup]:
        def element(*children: object, **attributes: object) -> Markup:
            told = {key.rstrip("_"): value for key, value in attributes.items() if value is not None}
            start = "".join(f' {key}="{_escaped(value, True)}"' for key, value in told.items())
            end = "" if name in VOID else f"{fragment(*children)}</{name}>"
            return Markup(f"<{name}{start}>{end}")

        return element


tag = _Tags()
"""Makes elements: `tag.NAME(*children, **attributes)`. An attribute that is None is left out."""


def fragment(*children: object) -> Markup:
    """Children one after the other, without an element about them."""
    return Markup("".join(map(_child, children)))


def lines(texts: Iterable[object]) -> Markup:
    """A line each."""
    return Markup(tag.br().join(map(_child, texts)))


def _child(child: object) -> str:
    if child is None or isinstance(child, Markup):
        return child or ""
    if isinstance(child, str | int | float):
        return _escaped(child)
    return fragment(*child)


def _escaped(text: object, quote: bool = False) -> str:
    return escape(str(text), quote).replace("\xa0", "&nbsp;")


def table(rows: Iterable[Markup], class_: str | None = None, scroll: bool = False) -> Markup:
    """A table of `head`, `row` and `group`. scroll: sideways by itself where the page is too narrow for it."""
    made = tag.table(rows, class_=class_)
    return tag.div(made, class_="scroll") if scroll else made


def head(*cells: object) -> Markup:
    """A table's row of titles."""
    return tag.tr(map(tag.th, cells))


def row(*cells: object) -> Markup:
    return tag.tr(map(tag.td, cells))


def group(title: object, columns: int) -> Markup:
    """A row that is a heading across its table."""
    return tag.tr(tag.th(title, class_="group", colspan=columns))


def facts_table(facts: Mapping[str, object], missing: str = "unknown") -> Markup:
    """Names and values. missing: what None is called."""
    values = (missing if v is None else v if isinstance(v, Markup) else str(v) for v in facts.values())
    return table(map(row, facts, values), "facts")


def in_words(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts by names as people write them, from those of Python."""
    return {name.replace("_", " "): value for name, value in facts.items()}


def small(*children: object) -> Markup:
    """A note."""
    return tag.p(*children, class_="small")


def items(children: Iterable[object], class_: str | None = None) -> Markup:
    """A list."""
    return tag.ul(map(tag.li, children), class_=class_)


def warning_list(warnings: Iterable[ScanWarning]) -> Markup:
    return items((fragment(w.message, " ", tag.code(w.code)) for w in warnings), "warnings")


def picture(content: bytes, kind: str, alt: str, style: str | None = None) -> Markup:
    """A picture within the page. kind: such as "image/jpeg". alt: what it shows, for those who do not see it."""
    return tag.img(alt=alt, style=style, src=f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}")


def figure(jpeg: bytes, caption: str) -> Markup:
    """A picture with its caption."""
    return tag.figure(picture(jpeg, "image/jpeg", caption), tag.figcaption(caption))


def page(title: str, *body: object) -> str:
    """A whole page that needs no other file."""
    about = (tag.meta(charset="utf-8"), tag.meta(name="viewport", content="width=device-width"))
    style = tag.style(Markup(STYLE))
    parts = (fragment(part, "\n") for part in body)
    made = tag.html(tag.head(*about, tag.title(title), style), tag.body(tag.main("\n", *parts)), lang="en")
    return f"<!DOCTYPE html>\n{made}\n"


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2529; background: #f3f5f6; margin: 0 }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 2.5rem; background: #fff }
h1 { font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere }
h2 { font-size: 1.3rem; margin-top: 2.8rem; border-bottom: 1px solid #dde3e6; padding-bottom: .3rem }
p { max-width: 46rem } a { color: #00588c; text-decoration: none } a:hover { text-decoration: underline }
code { font-size: .85em; color: #56656c }
.small { color: #56656c; font-size: .85rem } .score { font-size: 1.3rem } .line { white-space: nowrap }
.unreviewed, .severe { padding: .7rem 1rem; margin: 1rem 0; max-width: none }
.unreviewed { background: #fff4e0; border-left: 4px solid #ff9100 }
.severe { background: #fdecea; border-left: 4px solid #c62828 }
.warnings li { margin: .3rem 0 } .changed { font-weight: 600; color: #a33b00 } .unknown { color: #56656c }

table { border-collapse: collapse; width: 100% } th, td { padding: .3rem .6rem; border-bottom: 1px solid #dde3e6 }
th { text-align: right; font-weight: 600 } td { text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } td:first-child { min-width: 11rem }
th.group { text-align: left; padding: .8rem .6rem .3rem } .scroll { overflow-x: auto }
.facts td { text-align: left; overflow-wrap: anywhere; vertical-align: top }
.facts td:first-child { min-width: 9rem; width: 12rem }
.compared td:last-child, .compared th:last-child:not(.group) { text-align: left; padding-left: 1.2rem }
.compared td:first-child { min-width: 4rem }
.probabilities td { white-space: nowrap } .probabilities td:first-child { min-width: 6rem }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 50%; border: 1px solid #8a979d }
.bar { display: inline-block; width: 8rem; height: .7em; background: #e4e9eb; margin-right: .6rem }
.bar i { display: block; height: 100%; background: #2f7f9e }

.pictures { display: flex; flex-wrap: wrap; gap: 12px } figure { margin: 0; width: 320px; max-width: 100% }
.large figure { width: 468px }
figure img { width: 100%; display: block; background: #000 } figcaption { font-size: .85rem; color: #56656c }

.gallery { display: flex; gap: 12px; overflow-x: auto; scroll-snap-type: x mandatory; max-width: 468px;
  margin-bottom: 2rem }
.gallery figure { flex: 0 0 100%; scroll-snap-align: start; scroll-margin-top: 5rem }

.contents { margin: 1.2rem 0; line-height: 1.9 } .contents a { white-space: nowrap }
.numbered { margin: 2rem 0; break-inside: avoid } .numbered img { display: block; max-width: 100%; height: auto }
.caption { margin: .4rem 0 .5rem; max-width: none }
.note { color: #56656c; font-size: .85rem; margin: .5rem 0; max-width: none }
.numbered table { border-top: 2px solid #1c2529; border-bottom: 2px solid #1c2529; font-size: .92rem }
.numbered tr:first-child th { border-bottom: 1px solid #1c2529; vertical-align: bottom }
.numbered td { border-bottom-color: #edf0f2; vertical-align: top } .numbered tr:last-child td { border-bottom: 0 }
.numbered td, .numbered th { padding: .3rem .55rem } .numbered td:first-child { min-width: 9rem }
.wide .interval, .n { display: block } .numbered td:first-child .n, .group .n { display: inline; margin-left: .4em }
.numbered th.group { padding-top: .8rem; border-bottom: 1px solid #dde3e6 }
.estimate { white-space: nowrap } .interval { color: #56656c } .n { color: #7b8990; font-size: .88em; font-weight: 400 }
.words { display: block; text-align: left; min-width: 12rem } .indented { margin-left: 1.2em }
.published { font-style: italic; background: #eef2f4; padding: 0 .25em; border-radius: 3px }

@media (max-width: 640px) { main { padding: 1rem } .numbered img { max-width: none; min-width: 40rem } }
@media print {
  @page { margin: 18mm 15mm } body { background: #fff; font-size: 10.5pt } main { max-width: none; padding: 0 }
  .scroll, .gallery { overflow: visible } .gallery { flex-wrap: wrap; max-width: none }
  .gallery figure { flex: none; width: 30% }
  .numbered table { font-size: 8.5pt } h2 { break-after: avoid }
  .numbered td, .numbered th { padding: .2rem .3rem } .numbered td:first-child { min-width: 5rem }
  .numbered table.wide { font-size: 7pt } .words { min-width: 6rem }
  a { color: inherit } .unreviewed, .published { print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
"""

RESEARCH_ONLY = small("For research only. Not a medical device; not for diagnosis or treatment.")
