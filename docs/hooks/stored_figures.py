"""Figures of the pages, from the results that are stored on the cards of the models that come with CAC.

In a page a figure stands between two comments, so that it can be read anywhere. The first says where it comes from:

    <!-- figure CARD KEY.KEY ×SCALE .DIGITS -->0.77 [0.60, 0.87]<!-- /figure -->  a number; scale may be left out
    <!-- repeats CARD METHOD QUANTITY SCORE -->97<!-- /repeats -->                what this total repeats within
    <!-- stored CARD -->2026-11-21, commit `458ef25`<!-- /stored -->              when the card was stored

After a change of a card was committed, `.venv/bin/python docs/hooks/stored_figures.py` writes all of them anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from CACScoringLib.quality.calibration import Repeatability

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "CACScoring" / "CACScoringLib" / "Resources" / "Models"
COMMITS = ROOT / "docs" / "results" / "cards.json"
FIGURE = re.compile(r"(<!-- figure (\S+) (\S+)(?: ×(\S+))? \.(\d) -->).*?(<!-- /figure -->)", re.DOTALL)
REPEATS = re.compile(r"(<!-- repeats (\S+) (\S+) (\S+) (\S+) -->).*?(<!-- /repeats -->)", re.DOTALL)
STORED = re.compile(r"(<!-- stored (\S+) -->).*?(<!-- /stored -->)", re.DOTALL)


def with_figures(markdown: str) -> str:
    """The Markdown of a page with its figures as they are stored."""
    markdown = FIGURE.sub(lambda found: f"{found[1]}{_figure(*found.group(2, 3, 4, 5))}{found[6]}", markdown)
    markdown = REPEATS.sub(lambda found: f"{found[1]}{_repeats(*found.group(2, 3, 4, 5))}{found[6]}", markdown)
    return STORED.sub(lambda found: f"{found[1]}{_stored(found[2])}{found[3]}", markdown)


def _figure(card: str, keys: str, scale: str | None, digits: str) -> str:
    """A stored number, with the interval that is stored beside it, if any."""
    content = _card(card)
    *parents, last = keys.split(".")
    for key in parents:
        content = content[key]
    value = content[last]
    if isinstance(value, dict):
        numbers = value["estimate"], value["low"], value["high"]
    else:
        numbers = value, *content.get(f"{last}_95", ())
    first, *interval = (_rounded(Decimal(str(number)) * Decimal(scale or 1), int(digits)) for number in numbers)
    return f"{first} [{', '.join(interval)}]" if interval else first


def _repeats(card: str, method: str, quantity: str, score: str) -> str:
    """What 95 % of differences between two scans of an unchanged patient stay below, at this total."""
    limits = Repeatability.of(_card(card)["repeatability"]).limits[method][quantity]["total"]
    return _rounded(Decimal(limits.at(float(score))), 0)


def _card(name: str) -> dict:
    return json.loads(_file(name).read_text(encoding="utf-8"))


def _rounded(number: Decimal, digits: int) -> str:
    """As on paper: 0.595 becomes 0.60, which in binary is a little less."""
    return str(number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _stored(card: str) -> str:
    """When and by which commit a card was stored. Raises ValueError when the card is another than the known one."""
    known = json.loads(COMMITS.read_text(encoding="utf-8"))[card]
    if known["sha256"] != _sha256(card):
        raise ValueError(f"The card {card} has changed: commit it, and run docs/hooks/stored_figures.py.")
    return f"{known['date']}, commit `{known['commit']}`"


def _sha256(card: str) -> str:
    return hashlib.sha256(_file(card).read_bytes()).hexdigest()


def _file(card: str) -> Path:
    return CARDS / f"{card}.json"


def _write_commits() -> None:
    """Write down when each card was committed last: a clone without history could not tell."""
    commits = {}
    for card in sorted(file.stem for file in CARDS.glob("*.json")):
        command = ["git", "log", "-1", "--format=%cs %H", "--", str(_file(card))]
        date, commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        commits[card] = {"date": date, "commit": commit[:7], "sha256": _sha256(card)}
    COMMITS.write_text(json.dumps(commits, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_commits()
    for page in (ROOT / "docs").rglob("*.md"):
        written = page.read_text(encoding="utf-8")
        if (current := with_figures(written)) != written:
            page.write_text(current, encoding="utf-8")
            print(page.relative_to(ROOT))
