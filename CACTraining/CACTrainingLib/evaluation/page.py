"""Write a study: `study.html`, a self-contained page, and its tables and figures as separate files.

`study.json` lists them in their order, for programs that display the study themselves.

The page is structured like the results section of a paper: numbered tables and figures, estimates with 95 % interval
and n, and published figures of others in separate, marked columns.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from CACScoringLib.core.files import LEFT_SECONDS, read_json, remove_partial, write_bytes_atomically
from CACScoringLib.core.tables import table_text
from CACScoringLib.core.text import RESEARCH_ONLY
from CACScoringLib.record.score_record import ModelRecord
from CACScoringLib.report import page as report_page
from CACScoringLib.statistics.bootstrap import RESAMPLES, Estimate

from .figures import rendered
from .measures import COLUMNS
from .parts import PUBLISHED, Cell, Section, TablePart

PAGE, INDEX, VALUES = "study.html", "study.json", "values.csv"
SCHEMA = "cac-study/1"
"""Format of INDEX."""
TABLES, FIGURES = "tables", "figures"
"""Folders of the CSV, PNG and SVG files beside the page."""

DIGITAL = (
    "Digital patients: no result here shows how the method performs in patients. The scans were simulated, so that the "
    "truth is known. They lack much of what real chests contain."
)

WIDE_COLUMNS = 6
"""Number of columns above which a table has its intervals below the values, to fit a sheet of paper."""

_REFERENCE = re.compile(r"\[\[([a-z0-9_]+)\]\]")
_TEMPLATES = Path(__file__).parents[1] / "Resources"


def write_study(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    facts: dict[str, str],
    digital: bool = True,
) -> Path:
    """Write the page, `tables/NAME.csv`, `figures/NAME.png` and `.svg`, `values.csv` and `study.json`; return the page.

    `values.csv` has the long tables of all sections, from which the tables can be made again without the scans.

    `study.json` comes last: {"schema", "title", "digital", "page", "sections": [{"name", "title", "text": [paragraph,
    …], "tables": ["tables/NAME.csv", …], "figures": ["figures/NAME.png", …]}], "captions": {file: text}, "facts": {…}},
    with paths relative to the folder and all text plain.

    Tables and figures of an earlier study in the folder are removed.

    Args:
        folder: Output folder.
        title: Heading of the page.
        sections: Content; in texts and notes `[[name]]` becomes a link to the table or figure of that name.
        facts: Lines after the date at the end: data, models with hashes, seeds, seconds.
        digital: True for digital patients, which the page states at the top.
    """
    numbers, facts = _numbers(sections), {"Date": datetime.date.today().isoformat(), **facts}
    pictures = {figure.name: rendered(figure) for section in sections for figure in section.figures}
    svg = {name: files["svg"] for name, files in pictures.items()}
    values = VALUES if any(section.values for section in sections) else ""
    body = _body(numbers, sections, title=title, facts=facts, digital=digital, pictures=svg, values=values)
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
    if values:
        files[Path(VALUES)] = _values_as_csv(sections).encode()
    for place in (folder, folder / TABLES, folder / FIGURES):
        place.mkdir(parents=True, exist_ok=True)
        remove_partial(place, LEFT_SECONDS)
    _remove_earlier(folder)
    for path, content in files.items():
        write_bytes_atomically(folder / path, content)
    write_bytes_atomically(folder / PAGE, report_page.rendered("base.html", title, body=body).encode())
    about = {"schema": SCHEMA, "title": title, "digital": digital, "page": PAGE}
    index = json.dumps(about | _index(sections, facts, numbers), indent=1, ensure_ascii=False)
    write_bytes_atomically(folder / INDEX, index.encode())
    return folder / PAGE


def facts_of(models: Iterable[ModelRecord], seed: int, seconds: float) -> dict[str, str]:
    """Facts about scoring and comparison for the end of a page.

    Args:
        models: Models that scored.
        seed: Seed of the bootstrap.
        seconds: Duration of this run.
    """
    named = sorted({f"{model.network}: {model.name}, SHA-256 {model.sha256[:16]}" for model in models})
    return {
        "Models": "; ".join(named) or "none",
        "Bootstrap": f"seed {seed}, {RESAMPLES} resamples of patients",
        "This run": f"{seconds:.0f} s, not counting what earlier runs had stored",
    }


def _index(sections: Sequence[Section], facts: dict[str, str], numbers: dict[str, str]) -> dict[str, object]:
    captions, entries = {}, []
    for section in sections:
        files: dict[str, list[str]] = {TABLES: [], FIGURES: []}
        for folder, ending, parts in ((TABLES, "csv", section.tables), (FIGURES, "png", section.figures)):
            for part in parts:
                file = f"{folder}/{part.name}.{ending}"
                files[folder].append(file)
                end = "" if part.title.endswith((".", "?")) else "."
                captions[file] = f"{numbers[part.name]}. {part.title}{end} {_plain(part.note, numbers)}".rstrip()
        text = [_plain(text, numbers) for text in section.text]
        entries.append({"name": section.name, "title": section.title, "text": text, **files})
    return {"sections": entries, "captions": captions, "facts": facts}


def _plain(text: str, numbers: dict[str, str]) -> str:
    """Text with references as words."""
    return _REFERENCE.sub(lambda match: numbers[match[1]], text)


def _remove_earlier(folder: Path) -> None:
    """Remove the tables and figures that an earlier study's index lists, its values, and no other file."""
    index = folder / INDEX
    if not index.is_file():
        return
    for file in read_json(index)["captions"]:
        if re.fullmatch(r"(tables|figures)/[a-z0-9_]+\.(csv|png)", file):
            (folder / file).unlink(missing_ok=True)
            (folder / file).with_suffix(".svg").unlink(missing_ok=True)
    (folder / VALUES).unlink(missing_ok=True)
    index.unlink()


def _values_as_csv(sections: Sequence[Section]) -> str:
    """The sections' long tables with full precision, below each other; empty where a table has no such column."""
    rows = [
        {"section": section.name, **row}
        for section in sections
        for table in section.values
        for row in table.to_dict("records")
    ]
    columns = dict.fromkeys(["section", *COLUMNS, *(str(name) for row in rows for name in row)])
    return table_text([*columns], rows, guarded=True)


def table_as_csv(table: TablePart) -> str:
    """The table with full precision. A column that holds estimates becomes four: value, low, high, n."""
    columns: list[str] = []
    parts: list[list[tuple[object, ...]]] = []
    for title, cells in zip(table.columns, zip(*table.rows, strict=True), strict=False):
        spread = any(isinstance(cell, Estimate) for cell in cells)
        columns += (title, f"{title} low", f"{title} high", f"{title} n") if spread else (title,)
        values = [astuple(c) if isinstance(c, Estimate) else (c.strip() if isinstance(c, str) else c,) for c in cells]
        parts.append([value + ("",) * (4 - len(value)) if spread else value for value in values])
    rows = [[value for part in line for value in part] for line in zip(*parts, strict=True)]
    return table_text(columns or table.columns, rows, guarded=True)


def cell_text(cell: Cell) -> str:
    """Text of a cell: "0.74 [0.57, 0.85], n = 50", "1,543", "–" for None, "not defined" for NaN."""
    text, interval = _text_and_interval(cell)
    n = f", n = {cell.n:,}" if isinstance(cell, Estimate) else ""
    return f"{text} {interval}".strip() + n


def _text_and_interval(cell: Cell) -> tuple[str, str]:
    if isinstance(cell, Estimate):
        ends = [end for end in (cell.low, cell.high) if not math.isnan(end)]
        decimals = _decimals(cell.value, *ends)
        interval = f"[{', '.join(_number(end, decimals) for end in ends)}]" if len(ends) == 2 else ""
        return _number(cell.value, decimals), interval
    if isinstance(cell, float):
        return _number(cell, _decimals(cell)), ""
    if cell is None or isinstance(cell, str):
        return "–" if cell is None else cell.strip().replace("< ", "<\xa0"), ""  # "< 0.001" stays in one line
    return f"{cell:,}".replace("-", "−"), ""


def _decimals(*values: float) -> int:
    """Decimals that the largest value needs; more if another value would be rounded to 0."""
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
    return {name: f"Table {n}" for n, name in enumerate(tables, 1)} | {
        name: f"Figure {n}" for n, name in enumerate(figures, 1)
    }


def _body(numbers: dict[str, str], sections: Sequence[Section], **content: object) -> str:
    """The page's content as HTML, by the template."""
    import jinja2
    from markupsafe import Markup, escape

    def linked(text: str) -> Markup:
        """Plain text as HTML, references as links."""
        words = [escape(word) for word in _REFERENCE.split(text)]
        link = '<a href="#{}">{}</a>'
        words[1::2] = [Markup(link).format(name, numbers[name].replace(" ", "\xa0")) for name in words[1::2]]
        return Markup("").join(words)

    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "linked": linked,
        "layout": _layout,
        "sentence": lambda title: title if title.endswith((".", "?")) else f"{title}.",
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
    }
    tables = [table for section in sections for table in section.tables]
    published = any(_published(c) for t in tables for c in (*t.columns, *(line[0] for line in t.rows)))
    return environment.get_template("study.html").render(
        **content,
        sections=sections,
        numbers=numbers,
        published=published,
        digital_note=DIGITAL,
        research_only=RESEARCH_ONLY,
        wide_columns=WIDE_COLUMNS,
    )


def _layout(table: TablePart) -> dict[str, Any]:
    """Table as the template takes it.

    Returns:
        "n": number of items that all estimates share, or None; "columns": (CSS classes, title) each; "rows": text for a
        heading, else (CSS classes, text, interval, n or None) for each cell; n is None where the table's n holds.
    """
    counts = {cell.n for line in table.rows for cell in line if isinstance(cell, Estimate)}
    common = next(iter(counts)) if len(counts) == 1 else None
    words = [_holds_words(table, place) for place in range(len(table.columns))]

    def classes(place: int, published: bool, cell: Cell = None) -> str:
        marks = {"words": words[place], "published": published, "indented": str(cell).startswith("  ")}
        return " ".join(name for name, applies in marks.items() if applies)

    def cells(line: tuple[Cell, ...]) -> Iterator[tuple[str, str, str, int | None]]:
        for place, (title, cell) in enumerate(zip(table.columns, line, strict=True)):
            published = (_published(title) or _published(line[0])) and cell not in (None, "")
            n = cell.n if isinstance(cell, Estimate) and common is None and cell.n not in line else None
            yield classes(place, published, cell), *_text_and_interval(cell), n

    return {
        "n": common,
        "columns": [(classes(place, _published(title)), title) for place, title in enumerate(table.columns)],
        "rows": [cell_text(line[0]) if set(line[1:]) == {""} else list(cells(line)) for line in table.rows],
    }


def _holds_words(table: TablePart, column: int) -> bool:
    """True if a column holds sentences rather than figures."""
    cells = [line[column] for line in table.rows if line[column] not in (None, "")]
    texts = [cell for cell in cells if isinstance(cell, str)]
    return bool(cells) and len(texts) == len(cells) and any(len(text) > 20 for text in texts)


def _published(text: Cell) -> bool:
    return isinstance(text, str) and text.strip().startswith(PUBLISHED)
