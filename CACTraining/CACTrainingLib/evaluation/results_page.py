"""Check that the figures of the results page are those of its stored tables.

`results/figures.txt` beside the page has the page's lines with placeholders for their figures, below the heading of
their section and the name of their table:

    [Vessel territories: territories.csv: quantity, patches]
    | now | {LM, plain|now:3} | {LAD, plain|now:3} |

- `{row|column}`: a cell. A row is named by the table's first column or by the columns that the heading lists; one that
  begins with "…" by the last other row's name before it. Without a row, that of the line's previous placeholder counts,
  or at first the line's own first cell. Numbers of rows joined by " & " are added.
- `{column:3}`: the number with three decimals, rounded half up, without the zero before the point.
- `{column~}`: a part of the cell.

A template that begins with "|" is a row of a table, any other a part of a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.tables import TableError, read_cells

PAGE, TEMPLATES = "results.md", "results/figures.txt"

_HEADING = re.compile(r"\[([^:]+): ([^:]+)(?:: (.+))?\]")
_PLACEHOLDER = re.compile(r"\{(?:([^{}|]*)\|)?([^{}|~]+?)(?::(\d)|(~))?\}")
_FIGURE = re.compile(r"(?<![\w.,–-])[−-]?\d*\.?\d+(?![\w-])")
_NO_RESULT = re.compile(r"\d{4}-\d\d-\d\d|`[^`]*`|\]\([^)]*\)")
"""Dates, commits and names in code, and targets of links."""


@dataclass
class Block:
    """A table's row or a paragraph of the page.

    Attributes:
        line: Number of its first line.
        section: Heading of its section.
        text: Its text without line ends and emphasis.
        unchecked: The text without the figures that were checked.
    """

    line: int
    section: str
    text: str
    unchecked: str = ""


@dataclass
class PageCheck:
    """Result of a check.

    Attributes:
        checked: Number of figures that are the table's.
        differences: A sentence for each difference, with the line of the page.
        unchecked: Figures that no template covers, by line of the page.
    """

    checked: int = 0
    differences: list[str] = field(default_factory=list)
    unchecked: dict[int, list[str]] = field(default_factory=dict)


def check_results(docs: Path) -> str:
    """Check the results page in a folder; return a text about what was checked and what was not.

    Raises CTError where a figure is not that of its table, and TableError where a table or the page cannot be read.
    """
    try:
        check = check_page(docs)
    except OSError as error:
        raise CTError(f"{error.filename} cannot be read: {error.strerror}. Name the folder of {PAGE}.") from error
    if check.differences:
        listed = "\n".join(check.differences)
        raise CTError(
            f"{len(check.differences)} figures of {docs / PAGE} are not those of their tables. State those, "
            f"or measure again:\n{listed}"
        )
    lines = [f"{docs / PAGE}:{line}: {', '.join(figures)}" for line, figures in check.unchecked.items()]
    heading = f"{check.checked} cells of {docs / PAGE} are those of their tables. Figures of no stored table:"
    return "\n".join([heading, *lines])


def check_page(docs: Path) -> PageCheck:
    """Compare the results page in a folder with its stored tables. Raises TableError, OSError."""
    blocks, check = list(_blocks(docs / PAGE)), PageCheck()
    section, cells = "", dict[tuple[str, str], str]()
    for number, template in enumerate((docs / TEMPLATES).read_text(encoding="utf-8").splitlines(), 1):
        where = f"{TEMPLATES}:{number}"
        if heading := _HEADING.fullmatch(template):
            section, table, keys = heading.groups()
            cells = _cells(docs / "results" / table, keys.split(", ") if keys else [])
        elif template and not template.startswith("#"):
            _check_template(template, where, [block for block in blocks if block.section == section], cells, check)
    for block in blocks:
        if figures := _FIGURE.findall(_NO_RESULT.sub("", block.unchecked)):
            check.unchecked.setdefault(block.line, []).extend(figures)
    return check


def _blocks(page: Path) -> Iterator[Block]:
    """Rows of tables and paragraphs; headings and pictures left out."""
    section, start, words = "", 0, list[str]()
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], 1):
        text = line.strip().replace("**", "")
        if words and (not text or text[0] in "|#-"):
            paragraph = " ".join(words)
            yield Block(start, section, paragraph, paragraph)
            words = []
        if text.startswith("#"):
            section = text.lstrip("# ")
        elif text.startswith("|"):
            yield Block(number, section, text, text)
        elif text:
            start = start if words else number
            words.append(text)


def _cells(table: Path, keys: list[str]) -> dict[tuple[str, str], str]:
    """Cells of a table by the name of the row and the column."""
    (_, titles), *lines = read_cells(table)
    places = [titles.index(key) for key in keys] or [0]
    cells, group = dict[tuple[str, str], str](), ""
    for _, line in lines:
        name = ", ".join(line[place] for place in places)
        group = group if name.startswith("…") else name
        name = f"{group} {name}" if name.startswith("…") else name
        cells |= {(name, title): cell for title, cell in zip(titles, line, strict=False)}
    return cells


def _check_template(
    template: str, where: str, blocks: list[Block], cells: dict[tuple[str, str], str], check: PageCheck
) -> None:
    literals = _PLACEHOLDER.split(template)[:: _PLACEHOLDER.groups + 1]
    pattern = re.compile(r"(.+?)(?!\w)".join(map(re.escape, literals)))
    search = pattern.fullmatch if template.startswith("|") else pattern.search
    matches = [(block, match) for block in blocks if (match := search(block.text))]
    if len(matches) != 1:
        check.differences.append(f"{where}: {len(matches)} lines of {PAGE} are like “{template}”; there should be one.")
        return
    block, match = matches[0]
    row = template.strip("| ").partition(" | ")[0].replace("`", "")
    for group, placeholder in enumerate(_PLACEHOLDER.finditer(template), 1):
        other_row, column, decimals, is_part = placeholder.groups()
        row, stated = other_row or row, match[group]
        names = [(part, column) for part in row.split(" & ")]
        if not set(names) <= cells.keys():
            raise TableError(f"{where} names the row {row!r} and the column {column!r}, which the table does not have.")
        values = [cells[name] for name in names]
        stored = values[0] if len(values) == 1 else str(sum(map(int, values)))
        if decimals:
            rounded = Decimal(stored).quantize(Decimal(1).scaleb(-int(decimals)), ROUND_HALF_UP)
            stored = str(rounded).replace("0.", ".", 1) if abs(rounded) < 1 else str(rounded)
        if stored == stated or (is_part and re.search(rf"(?<![\w.]){re.escape(stated)}(?![\w.])", stored)):
            check.checked += 1
        else:
            check.differences.append(f"{PAGE}:{block.line}: {row}, {column}: {stated!r} is stated, {stored!r} stored.")
        start, end = match.span(group)
        block.unchecked = block.unchecked[:start] + " " * (end - start) + block.unchecked[end:]
