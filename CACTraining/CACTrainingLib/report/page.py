"""A study on disk: `study.html`, one page that needs no other file, and its tables and figures as files of their own.

`study.json` lists them in their order, for programs that show the study themselves.

The page reads like the results section of a paper: numbered tables and figures, estimates with their 95 % interval and
n, others' published figures in columns of their own and marked as such.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.report.markup import RESEARCH_ONLY, head, page, row

from ..statistics.measures import Estimate
from .figures import rendered
from .parts import PUBLISHED, Figure, Section, Table

if TYPE_CHECKING:
    from .parts import Cell

PAGE, INDEX = "study.html", "study.json"
SCHEMA = "cac-study/1"
"""Of INDEX."""
TABLES, FIGURES = "tables", "figures"
"""Folders of the CSV, PNG and SVG files beside the page."""

DIGITAL = (
    "<b>Digital patients: no figure here says how the method does in patients.</b> The scans were computed, so that "
    "the truth is known. They lack much of what real chests have."
)

WIDE_COLUMNS = 6
"""A table of more has its intervals below the values, so that it fits a sheet of paper."""

_REFERENCE = re.compile(r"\[\[([a-z0-9_]+)\]\]")
_NUMBERED = re.compile(r'class="numbered" id="([a-z0-9_]+)"')
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_study(
    folder: Path, title: str, sections: Sequence[Section], facts: dict[str, str], digital: bool = True
) -> Path:
    """Write `study.html`, `tables/NAME.csv`, `figures/NAME.png` and `.svg`, and `study.json`; returns the page's path.

    `study.json` comes last: {"schema", "title", "digital", "sections": [{"name", "title", "text": [paragraph, …],
    "tables": ["tables/NAME.csv", …], "figures": ["figures/NAME.png", …]}], "captions": {file: text}, "facts": {…}},
    with paths relative to the folder and all text plain.

    facts: shown at the end: data, models with hashes, seeds, date, seconds. digital: whether the scans are of digital
    patients, which is said on top. In texts and notes `[[name]]` becomes a link to the table or figure of that name.

    Raises ValueError when two sections share a name, or two of all tables and figures do, or a text refers to a name
    that is not there. Tables and figures of an earlier study in the folder are removed, for they are of other numbers.
    """
    numbers = _numbers(sections)
    pictures = {figure.name: rendered(figure) for section in sections for figure in section.figures}
    body = [f"<h1>{escape(title)}</h1>"]
    body.append(f'<p class="unreviewed">{DIGITAL}</p>' if digital else RESEARCH_ONLY)
    body.append(_contents(sections))
    body.append(_how_to_read(sections))
    for number, section in enumerate(sections, 1):
        body += _section(section, number, numbers, pictures)
    body.append(_facts(facts))
    files = {
        Path(TABLES, f"{table.name}.csv"): table_as_csv(table).encode()
        for section in sections
        for table in section.tables
    }
    files |= {
        Path(FIGURES, f"{name}.{ending}"): content
        for name, picture in pictures.items()
        for ending, content in picture.items()
    }
    for sub in (TABLES, FIGURES):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    _remove_shown_before(folder)
    for path, content in files.items():
        _write(folder / path, content)
    _write(folder / PAGE, page(title, "\n".join(body), _STYLE).encode())
    index = json.dumps(_index(title, sections, facts, digital, numbers), indent=1, ensure_ascii=False)
    _write(folder / INDEX, index.encode())
    return folder / PAGE


def _index(
    title: str, sections: Sequence[Section], facts: dict[str, str], digital: bool, numbers: dict[str, str]
) -> dict[str, object]:
    captions, listed = {}, []
    for section in sections:
        files: dict[str, list[str]] = {TABLES: [], FIGURES: []}
        for folder, ending, parts in ((TABLES, "csv", section.tables), (FIGURES, "png", section.figures)):
            for part in parts:
                file = f"{folder}/{part.name}.{ending}"
                files[folder].append(file)
                end = "" if part.title.endswith((".", "?")) else "."
                captions[file] = f"{numbers[part.name]}. {part.title}{end} {_plain(part.note, numbers)}".rstrip()
        text = [_plain(text, numbers) for text in section.text]
        listed.append({"name": section.name, "title": section.title, "text": text, **files})
    about = {"schema": SCHEMA, "title": title, "digital": digital}
    return {**about, "sections": listed, "captions": captions, "facts": facts}


def _plain(text: str, numbers: dict[str, str]) -> str:
    """Text with references as words."""
    return _REFERENCE.sub(lambda match: numbers[match[1]], text)


def _remove_shown_before(folder: Path) -> None:
    """Remove the tables and figures that the folder's page shows; nothing else that lies beside them."""
    before = folder / PAGE
    (folder / INDEX).unlink(missing_ok=True)
    for name in _NUMBERED.findall(before.read_text(encoding="utf-8")) if before.is_file() else ():
        for path in (Path(TABLES, f"{name}.csv"), Path(FIGURES, f"{name}.png"), Path(FIGURES, f"{name}.svg")):
            (folder / path).unlink(missing_ok=True)


def table_as_csv(table: Table) -> str:
    """The table with full precision. A column that holds estimates becomes four: value, low, high, n."""
    spread = [any(isinstance(line[c], Estimate) for line in table.rows) for c in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    titles = zip(table.columns, spread, strict=True)
    writer.writerow([name for t, four in titles for name in ((t, f"{t} low", f"{t} high", f"{t} n") if four else (t,))])
    for line in table.rows:
        cells: list[object] = []
        for cell, four in zip(line, spread, strict=True):
            if isinstance(cell, Estimate):
                cells += [cell.value, cell.low, cell.high, cell.n]
            else:
                cells += [_csv_cell(cell), "", "", ""] if four else [_csv_cell(cell)]
        writer.writerow(cells)
    return stream.getvalue()


def shown(cell: Cell, with_n: bool = True) -> str:
    """A cell as people read it: "0.74 [0.57, 0.85], n = 50", "1,543", "–" for None, "not defined" for NaN."""
    if isinstance(cell, Estimate):
        n = f", n = {cell.n:,}" if with_n else ""
        return _estimate(cell) + n
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}".replace("-", "−")
    if isinstance(cell, float):
        return _number(cell, _decimals(cell))
    return cell.strip()


def _estimate(estimate: Estimate) -> str:
    ends = [end for end in (estimate.low, estimate.high) if not math.isnan(end)]
    decimals = _decimals(estimate.value, *ends)
    value = _number(estimate.value, decimals)
    if len(ends) < 2:
        return value
    return f"{value} [{_number(estimate.low, decimals)}, {_number(estimate.high, decimals)}]"


def _decimals(*values: float) -> int:
    """As many as the largest value needs, and more where a value that is not 0 would be shown as 0."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=0.0)
    decimals = 0 if largest >= 100 else 1 if largest >= 10 else 2
    while decimals < 4 and any(value and round(value, decimals) == 0 for value in finite):
        decimals += 1
    if len(values) == 1 and 0 < largest < 0.1:  # as small as probabilities are, whose third figure matters
        decimals = max(decimals, 3 if largest >= 0.001 else 4)
    return decimals


def _number(value: float, decimals: int) -> str:
    if math.isnan(value):
        return "not defined"
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else "−").replace("inf", "∞")


def _numbers(sections: Sequence[Section]) -> dict[str, str]:
    """ "Table 3", "Figure 1" by name."""
    tables = [table.name for section in sections for table in section.tables]
    figures = [figure.name for section in sections for figure in section.figures]
    for names in ([section.name for section in sections], [*tables, *figures]):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names in a study must differ; there are two of {', '.join(twice)}")
    return {name: f"Table {n}" for n, name in enumerate(tables, 1)} | {
        name: f"Figure {n}" for n, name in enumerate(figures, 1)
    }


def _contents(sections: Sequence[Section]) -> str:
    links = [f'<a href="#section-{s.name}">{n}&nbsp;{escape(s.title)}</a>' for n, s in enumerate(sections, 1)]
    return f'<nav class="contents">{" · ".join([*links, "<a href=#facts>How it was made</a>"])}</nav>'


def _how_to_read(sections: Sequence[Section]) -> str:
    lines = ["Square brackets hold 95&nbsp;% intervals; n is what an estimate rests on; – means that there is none."]
    tables = [table for section in sections for table in section.tables]
    if any(_published(c) for t in tables for c in (*t.columns, *(line[0] for line in t.rows))):
        lines.append(
            '<span class="published">Shaded figures in italics were published by others</span>, on other scans of '
            "other patients: they stand beside the rest, they were not measured here."
        )
    return f'<p class="small">{" ".join(lines)}</p>'


def _section(
    section: Section, number: int, numbers: dict[str, str], pictures: dict[str, dict[str, bytes]]
) -> list[str]:
    parts = [f'<section id="section-{section.name}"><h2>{number}&ensp;{escape(section.title)}</h2>']
    parts += [f"<p>{_linked(text, numbers)}</p>" for text in section.text]
    parts += [_table(table, numbers) for table in section.tables]
    parts += [_figure(figure, pictures[figure.name]["svg"], numbers) for figure in section.figures]
    return [*parts, "</section>"]


def _table(table: Table, numbers: dict[str, str]) -> str:
    places, counts = _places_of_n(table)
    words = [_holds_words(table, c) for c in range(len(table.columns))]
    titles = zip(table.columns, words, strict=True)
    rows = [head(*(_heading(title, left, counts.get(("column", c))) for c, (title, left) in enumerate(titles)))]
    for r, line in enumerate(table.rows):
        n = counts.get(("row", r))
        if _is_heading(line):
            text = f"{escape(shown(line[0]))}{_n(n)}"
            rows.append(f'<tr><th class="group" colspan="{len(line)}">{text}</th></tr>')
            continue
        by_others = [_published(title) or _published(line[0]) for title in table.columns]
        cells = [_cell(*cell, places == "cell") for cell in zip(line, words, by_others, strict=True)]
        rows.append(row(cells[0] + ("" if n in line else _n(n)), *cells[1:]))
    notes = [_linked(table.note, numbers)] if table.note else []
    notes += [f"n = {counts['table']:,} throughout."] if places == "table" else []
    note = f'<p class="note">{" ".join(notes)}</p>' if notes else ""
    wide = ' class="wide"' if len(table.columns) > WIDE_COLUMNS else ""
    return (
        f'<div class="numbered" id="{table.name}"><p class="caption"><b>{numbers[table.name]}.</b> '
        f'{_sentence(table.title)}</p><div class="scroll"><table{wide}>{"".join(rows)}</table></div>{note}</div>'
    )


def _places_of_n(table: Table) -> tuple[str, dict[object, int]]:
    """Where the estimates' n is told, so that it is told as rarely as it can be: of the whole table, of each column, of
    each group or row, or in each cell. Returns the place, and n by "table", ("column", c) or ("row", r); a group's is
    that of its heading's row.
    """
    groups, heading = [], None
    for r, line in enumerate(table.rows):
        heading = r if _is_heading(line) else heading
        groups.append(heading)
    placed: dict[str, dict[object, set[int]]] = {"table": {}, "column": {}, "group": {}, "row": {}}
    for r, line in enumerate(table.rows):
        for c, cell in enumerate(line):
            if isinstance(cell, Estimate):
                keys = ("table", ("column", c), ("row", groups[r]), ("row", r))
                for found, key in zip(placed.values(), keys, strict=True):
                    found.setdefault(key, set()).add(cell.n)
    for place, found in placed.items():
        grouped = place != "group" or ("row", None) not in found
        if found and grouped and all(len(counts) == 1 for counts in found.values()):
            return place, {key: counts.pop() for key, counts in found.items()}
    return "cell", {}


def _is_heading(line: tuple[Cell, ...]) -> bool:
    return len(line) > 1 and all(cell == "" for cell in line[1:])


def _n(n: int | None) -> str:
    return "" if n is None else f' <span class="n">n = {n:,}</span>'


def _heading(title: str, left: bool, n: int | None) -> str:
    classes = " ".join([*(["words"] if left else []), *(["published"] if _published(title) else [])])
    return f'<span class="{classes}">{escape(title)}</span>{_n(n)}'


def _cell(cell: Cell, left: bool, by_others: bool, with_n: bool) -> str:
    marked = by_others and cell not in (None, "")
    classes = " ".join([*(["words"] if left else []), *(["published"] if marked else [])])
    if isinstance(cell, Estimate):
        value, _, interval = _estimate(cell).partition(" [")
        interval = f' <span class="interval">[{interval}</span>' if interval else ""
        return f'<span class="estimate {classes}">{value}{interval}</span>{_n(cell.n) if with_n else ""}'
    indented = isinstance(cell, str) and cell.startswith("  ")
    text = escape(shown(cell)).replace("&lt; ", "&lt;&nbsp;")  # "< 0.001" stays in one line
    return f'<span class="{classes}{" indented" if indented else ""}">{text}</span>'


def _holds_words(table: Table, column: int) -> bool:
    """Whether a column after the first is text to be read rather than figures to be compared."""
    cells = [line[column] for line in table.rows if line[column] not in (None, "")]
    texts = [cell for cell in cells if isinstance(cell, str)]
    return bool(cells) and len(texts) == len(cells) and any(len(text) > 20 for text in texts)


def _figure(figure: Figure, svg: bytes, numbers: dict[str, str]) -> str:
    data = base64.b64encode(svg).decode("ascii")
    note = f' <span class="small">{_linked(figure.note, numbers)}</span>' if figure.note else ""
    return (
        f'<div class="numbered" id="{figure.name}"><div class="scroll"><img alt="{escape(figure.title)}" '
        f'style="width:{figure.size_inches[0] / 7:.0%}" src="data:image/svg+xml;base64,{data}"></div>'
        f'<p class="caption"><b>{numbers[figure.name]}.</b> {_sentence(figure.title)}{note}</p></div>'
    )


def _facts(facts: dict[str, str]) -> str:
    rows = [row(escape(name), escape(value).replace("\n", "<br>")) for name, value in facts.items()]
    return (
        f'<section id="facts"><h2>How it was made</h2><table class="facts">{"".join(rows)}</table>'
        f'<p class="small">Every table lies as CSV in <code>{TABLES}</code> beside this page, every figure as PNG and '
        f"SVG in <code>{FIGURES}</code>.</p></section>"
    )


def _linked(text: str, numbers: dict[str, str]) -> str:
    """Plain text as HTML, references as links."""

    def link(match: re.Match) -> str:
        if match[1] not in numbers:
            raise ValueError(f"a text refers to {match[0]}, but there is no such table or figure: {text}")
        return f'<a href="#{match[1]}">{numbers[match[1]].replace(" ", "&nbsp;")}</a>'

    return _REFERENCE.sub(link, escape(text))


def _sentence(title: str) -> str:
    return escape(title if title.endswith((".", "?")) else f"{title}.")


def _published(text: Cell) -> bool:
    return isinstance(text, str) and text.strip().startswith(PUBLISHED)


def _csv_cell(cell: Cell) -> object:
    # A spreadsheet runs a cell that begins like a formula, and names of scans come from outside.
    if isinstance(cell, str):
        return f"'{cell.strip()}" if cell.startswith(_FORMULA) else cell.strip()
    return "" if cell is None else cell


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_STYLE = """
main { padding: 2rem 2.5rem } h1 { font-size: 1.7rem; line-height: 1.2 }
h2 { font-size: 1.3rem; margin-top: 2.8rem; border-bottom: 1px solid #dde3e6; padding-bottom: .3rem }
p { max-width: 46rem } a { color: #00588c; text-decoration: none } a:hover { text-decoration: underline }
.contents { margin: 1.2rem 0; line-height: 1.9 } .contents a { white-space: nowrap }
.numbered { margin: 2rem 0; break-inside: avoid } .numbered img { display: block; max-width: 100%; height: auto }
.caption { margin: .4rem 0 .5rem; max-width: none }
.note { color: #56656c; font-size: .85rem; margin: .5rem 0; max-width: none }
.numbered table { border-top: 2px solid #1c2529; border-bottom: 2px solid #1c2529; font-size: .92rem }
.numbered tr:first-child th { border-bottom: 1px solid #1c2529; vertical-align: bottom }
.numbered td { border-bottom-color: #edf0f2; vertical-align: top } .numbered tr:last-child td { border-bottom: 0 }
.numbered td, .numbered th { padding: .3rem .55rem }
.wide .interval, .n { display: block } .numbered td:first-child .n, .group .n { display: inline; margin-left: .4em }
.numbered th.group { text-align: left; font-weight: 600; padding-top: .8rem; border-bottom: 1px solid #dde3e6 }
.numbered td:first-child { min-width: 9rem } .facts td { vertical-align: top } .facts td:first-child { width: 12rem }
.estimate { white-space: nowrap } .interval { color: #56656c } .n { color: #7b8990; font-size: .88em; font-weight: 400 }
.words { display: block; text-align: left; min-width: 12rem } .indented { margin-left: 1.2em }
.published { font-style: italic; background: #eef2f4; padding: 0 .25em; border-radius: 3px }
@media (max-width: 640px) { main { padding: 1rem } .numbered img { max-width: none; min-width: 40rem } }
@media print {
  @page { margin: 18mm 15mm } body { background: #fff; font-size: 10.5pt } main { max-width: none; padding: 0 }
  .scroll { overflow: visible } .numbered table { font-size: 8.5pt } h2 { break-after: avoid }
  .numbered td, .numbered th { padding: .2rem .3rem } .numbered td:first-child { min-width: 5rem }
  .numbered table.wide { font-size: 7pt } .words { min-width: 6rem }
  a { color: inherit } .unreviewed, .published { print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
"""
