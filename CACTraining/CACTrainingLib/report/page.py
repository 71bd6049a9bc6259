"""A study on disk: `study.html`, one page that needs no other file, and its tables and figures as files of their own.

`study.json` lists them in their order, for programs that show the study themselves.

The page reads like the results section of a paper: numbered tables and figures, estimates with their 95 % interval and
n, others' published figures in columns of their own and marked as such.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.files import LEFT_SECONDS, remove_partial, write_bytes_atomically
from CACScoringLib.core.tables import table_text
from CACScoringLib.report.markup import (
    RESEARCH_ONLY,
    Markup,
    facts_table,
    fragment,
    group,
    head,
    lines,
    page,
    picture,
    row,
    small,
    table,
    tag,
)

from ..statistics.bootstrap import Estimate
from .figures import rendered
from .parts import PUBLISHED, Figure, Section, Table

if TYPE_CHECKING:
    from .parts import Cell, Gallery

PAGE, INDEX = "study.html", "study.json"
SCHEMA = "cac-study/1"
"""Of INDEX."""
TABLES, FIGURES = "tables", "figures"
"""Folders of the CSV, PNG and SVG files beside the page."""

DIGITAL = fragment(
    tag.b("Digital patients: no result here shows how the method performs in patients."),
    " The scans were simulated, so that the truth is known. They lack much of what real chests contain.",
)

WIDE_COLUMNS = 6
"""A table of more has its intervals below the values, so that it fits a sheet of paper."""

_REFERENCE = re.compile(r"\[\[([a-z0-9_]+)\]\]")
_NUMBERED = re.compile(r'class="numbered" id="([a-z0-9_]+)"')


def write_study(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    facts: dict[str, str],
    digital: bool = True,
    page_name: str = PAGE,
) -> Path:
    """Write the page, `tables/NAME.csv`, `figures/NAME.png` and `.svg`, and `study.json`; returns the page's path.

    `study.json` comes last: {"schema", "title", "digital", "sections": [{"name", "title", "text": [paragraph, …],
    "tables": ["tables/NAME.csv", …], "figures": ["figures/NAME.png", …]}], "captions": {file: text}, "facts": {…}},
    with paths relative to the folder and all text plain.

    facts: shown at the end: data, models with hashes, seeds, date, seconds. digital: whether the scans are of digital
    patients, which the page says on top. page_name: of the page's file. In texts and notes `[[name]]` becomes a link to
    the table or figure of that name.

    Raises ValueError when two sections share a name, or two of all tables and figures do, or a text refers to a name
    that is not there. Tables and figures of an earlier study in the folder are removed, for they are of other numbers.
    """
    numbers = _numbers(sections)
    pictures = {figure.name: rendered(figure) for section in sections for figure in section.figures}
    body = [
        tag.h1(title),
        tag.p(DIGITAL, class_="unreviewed") if digital else RESEARCH_ONLY,
        _contents(sections),
        _how_to_read(sections),
        *(_section(section, number, numbers, pictures) for number, section in enumerate(sections, 1)),
        _facts(facts),
    ]
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
    for place in (folder, folder / TABLES, folder / FIGURES):
        place.mkdir(parents=True, exist_ok=True)
        remove_partial(place, LEFT_SECONDS)
    _remove_shown_before(folder, page_name)
    for path, content in files.items():
        write_bytes_atomically(folder / path, content)
    write_bytes_atomically(folder / page_name, page(title, *body).encode())
    index = json.dumps(_index(title, sections, facts, digital, numbers), indent=1, ensure_ascii=False)
    write_bytes_atomically(folder / INDEX, index.encode())
    return folder / page_name


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


def _remove_shown_before(folder: Path, page_name: str) -> None:
    """Remove the tables and figures that the folder's page shows; nothing else that lies beside them."""
    before = folder / page_name
    (folder / INDEX).unlink(missing_ok=True)
    for name in _NUMBERED.findall(before.read_text(encoding="utf-8")) if before.is_file() else ():
        for path in (Path(TABLES, f"{name}.csv"), Path(FIGURES, f"{name}.png"), Path(FIGURES, f"{name}.svg")):
            (folder / path).unlink(missing_ok=True)


def table_as_csv(table: Table) -> str:
    """The table with full precision. A column that holds estimates becomes four: value, low, high, n."""
    spread = [any(isinstance(line[c], Estimate) for line in table.rows) for c in range(len(table.columns))]
    titles = zip(table.columns, spread, strict=True)
    columns = [name for t, four in titles for name in ((t, f"{t} low", f"{t} high", f"{t} n") if four else (t,))]
    rows = []
    for line in table.rows:
        cells: list[object] = []
        for cell, four in zip(line, spread, strict=True):
            if isinstance(cell, Estimate):
                cells += [cell.value, cell.low, cell.high, cell.n]
            else:
                plain = cell.strip() if isinstance(cell, str) else cell
                cells += [plain, "", "", ""] if four else [plain]
        rows.append(cells)
    return table_text(columns, rows, guarded=True)


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


def _contents(sections: Sequence[Section]) -> Markup:
    links = ([tag.a(f"{n}\xa0{s.title}", href=f"#section-{s.name}"), " · "] for n, s in enumerate(sections, 1))
    return tag.nav(links, tag.a("How it was made", href="#facts"), class_="contents")


def _how_to_read(sections: Sequence[Section]) -> Markup:
    text = "Square brackets hold 95\xa0% intervals; n is what an estimate rests on; – means that there is none."
    tables = [table for section in sections for table in section.tables]
    if not any(_published(c) for t in tables for c in (*t.columns, *(line[0] for line in t.rows))):
        return small(text)
    return small(
        f"{text} ",
        tag.span("Shaded figures in italics were published by others", class_="published"),
        ", on other scans of other patients: they are shown for comparison and were not measured here.",
    )


def _section(section: Section, number: int, numbers: dict[str, str], pictures: dict[str, dict[str, bytes]]) -> Markup:
    return tag.section(
        tag.h2(f"{number}\N{EN SPACE}{section.title}"),
        (tag.p(_linked(text, numbers)) for text in section.text),
        (_table(made, numbers) for made in section.tables),
        (_figure(figure, pictures[figure.name]["svg"], numbers) for figure in section.figures),
        map(_gallery, section.galleries),
        id=f"section-{section.name}",
    )


def _table(made: Table, numbers: dict[str, str]) -> Markup:
    places, counts = _places_of_n(made)
    words = [_holds_words(made, c) for c in range(len(made.columns))]
    titles = zip(made.columns, words, strict=True)
    rows = [head(*(_heading(title, left, counts.get(("column", c))) for c, (title, left) in enumerate(titles)))]
    for r, line in enumerate(made.rows):
        n = counts.get(("row", r))
        if _is_heading(line):
            rows.append(group([shown(line[0]), _n(n)], len(line)))
            continue
        by_others = [_published(title) or _published(line[0]) for title in made.columns]
        cells = [_cell(*cell, places == "cell") for cell in zip(line, words, by_others, strict=True)]
        rows.append(row([cells[0], None if n in line else _n(n)], *cells[1:]))
    throughout = f" n = {counts['table']:,} throughout." if places == "table" else ""
    note = tag.p(_linked(made.note, numbers), throughout, class_="note") if made.note or throughout else None
    return tag.div(
        tag.p(tag.b(f"{numbers[made.name]}."), f" {_sentence(made.title)}", class_="caption"),
        table(rows, "wide" if len(made.columns) > WIDE_COLUMNS else None, scroll=True),
        note,
        class_="numbered",
        id=made.name,
    )


def _places_of_n(table: Table) -> tuple[str, dict[object, int]]:
    """Where the estimates' n is shown, as rarely as possible: of the whole table, of each column, of
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


def _n(n: int | None) -> Markup | None:
    return None if n is None else fragment(" ", tag.span(f"n = {n:,}", class_="n"))


def _heading(title: str, left: bool, n: int | None) -> Markup:
    return fragment(_marked(title, words=left, published=_published(title)), _n(n))


def _cell(cell: Cell, left: bool, by_others: bool, with_n: bool) -> Markup:
    marks = {"words": left, "published": by_others and cell not in (None, "")}
    if isinstance(cell, Estimate):
        value, _, interval = _estimate(cell).partition(" [")
        rest = [" ", tag.span(f"[{interval}", class_="interval")] if interval else None
        return fragment(_marked([value, rest], estimate=True, **marks), _n(cell.n) if with_n else None)
    text = shown(cell).replace("< ", "<\xa0")  # "< 0.001" stays in one line
    return _marked(text, **marks, indented=isinstance(cell, str) and cell.startswith("  "))


def _marked(content: object, **classes: bool) -> Markup:
    """Content in a span of those classes that are true."""
    return tag.span(content, class_=" ".join(name for name, true in classes.items() if true) or None)


def _holds_words(table: Table, column: int) -> bool:
    """Whether a column after the first is text to be read rather than figures to be compared."""
    cells = [line[column] for line in table.rows if line[column] not in (None, "")]
    texts = [cell for cell in cells if isinstance(cell, str)]
    return bool(cells) and len(texts) == len(cells) and any(len(text) > 20 for text in texts)


def _figure(figure: Figure, svg: bytes, numbers: dict[str, str]) -> Markup:
    drawn = picture(svg, "image/svg+xml", figure.title, style=f"width:{figure.size_inches[0] / 7:.0%}")
    note = [" ", tag.span(_linked(figure.note, numbers), class_="small")] if figure.note else None
    return tag.div(
        tag.div(drawn, class_="scroll"),
        tag.p(tag.b(f"{numbers[figure.name]}."), f" {_sentence(figure.title)}", note, class_="caption"),
        class_="numbered",
        id=figure.name,
    )


def _gallery(gallery: Gallery) -> Markup:
    """Pictures side by side, of which one is seen; links lead to the one before and the next, without a script."""
    count = len(gallery.pictures)
    shown = []
    for n, one in enumerate(gallery.pictures, 1):
        ways = [tag.a(word, href=f"#{gallery.name}-{(n - 1 + step) % count + 1}") for word, step in _WAYS.items()]
        more = [" · ", tag.a("report of the scan", href=one.link)] if one.link else None
        place = small(ways[0], f" {n} of {count} ", ways[1], more)
        caption = tag.figcaption(one.caption)
        drawn = picture(one.jpeg, "image/jpeg", one.caption)
        shown.append(tag.figure(place, drawn, caption, id=f"{gallery.name}-{n}"))
    return tag.div(
        tag.p(tag.b(gallery.title), class_="caption"),
        tag.p(gallery.note, class_="note") if gallery.note else None,
        tag.div(shown, class_="gallery"),
    )


_WAYS = {"← previous": -1, "next →": 1}


def _facts(facts: dict[str, str]) -> Markup:
    return tag.section(
        tag.h2("How it was made"),
        facts_table({name: lines(value.split("\n")) for name, value in facts.items()}),
        small(
            "Every table lies as CSV in ",
            tag.code(TABLES),
            " beside this page, every figure as PNG and SVG in ",
            tag.code(FIGURES),
            ".",
        ),
        id="facts",
    )


def _linked(text: str, numbers: dict[str, str]) -> Markup:
    """Plain text as HTML, references as links."""
    words = _REFERENCE.split(text)
    for name in words[1::2]:
        if name not in numbers:
            raise ValueError(f"a text refers to [[{name}]], but there is no such table or figure: {text}")
    words[1::2] = [tag.a(numbers[name].replace(" ", "\xa0"), href=f"#{name}") for name in words[1::2]]
    return fragment(words)


def _sentence(title: str) -> str:
    return title if title.endswith((".", "?")) else f"{title}."


def _published(text: Cell) -> bool:
    return isinstance(text, str) and text.strip().startswith(PUBLISHED)
