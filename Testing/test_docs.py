"""Commands and options that the README and the pages under docs name exist, and tables of results name theirs.

MkDocs checks the links.
"""

import argparse
import csv
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from CACScoringLib.models.cards import find_model
from CACScoringLib.models.operating_points import PUBLISHED, operating_point
from CACScoringLib.networks.configs import UNLIKELY
from CACScoringLib.whole_scan.vessels import CERTAINTY, FACTOR
from CACTrainingLib.cli import main as command_line
from CACTrainingLib.training.published_evaluation import READER

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
ORIGIN = {"command", "settings", "seed", "date", "commit"}
NOT_OURS = {"--testing", "--no-splash", "--additional-module-paths", "--python-code", "--python-script"}  # of Slicer


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def command_lines(written: str) -> list[list[str]]:
    """Words of every command in code blocks and backticks, comments included.

    Text with an open quotation mark is left out.
    """
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall(written)]
    lines = [line for block in blocks for line in block.splitlines()[1:-1]]
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", FENCE.sub("", written))]
    commands = []
    for line in lines:
        for part in re.split(r"(?:^|(?<=\s))(?=(?:\./)?cac\s)", line):
            # `cac score:` within a remark is prose: only an inline `cac` that begins the code is a command.
            if not part.startswith(("./cac ", "cac ")):
                continue
            try:
                words = shlex.split(part.split("&&")[0].replace("#", " "))
            except ValueError:
                continue
            commands.append([word.strip(";,.()") for word in words[1:]])
    return commands


@pytest.fixture(scope="module")
def parser():
    return command_line.complete_parser()


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def is_placeholder(word: str) -> bool:
    return word.isupper() or "…" in word


def faults(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Commands and options that the parser does not know."""
    if words[:1] == ["test"]:
        return []  # the rest is pytest's
    words = list(words)
    while choices := subcommands(parser):
        # `./cac --help` names no command, `cac train NETWORK --help` leaves one open.
        if not words or words[0].startswith("-") or is_placeholder(words[0]):
            break
        if words[0] not in choices:
            return words[:1]
        parser = choices[words.pop(0)]
    options = [word.partition("=")[0] for word in words if re.match(r"--\w", word)]
    return [option for option in options if option not in parser._option_string_actions]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page, parser):
    wrong = [(words, unknown) for words in command_lines(text(page)) if (unknown := faults(words, parser))]
    assert wrong == []


def test_options_named_alone_exist_in_some_command(parser):
    def options(parser: argparse.ArgumentParser) -> set[str]:
        return set(parser._option_string_actions).union(*map(options, subcommands(parser).values()))

    options_of_all = options(parser) | NOT_OURS
    for page in PAGES:
        named = re.findall(r"`(--[\w-]+)", FENCE.sub("", text(page)))
        assert (name(page), set(named) - options_of_all) == (name(page), set())


def test_sentences_state_the_figures_of_the_cards():
    """Figures in sentences, which no table writes: of the vessel model."""
    models = ROOT / "CACScoring" / "CACScoringLib" / "Resources" / "Models"
    vessels = json.loads((models / "vessels-digital.json").read_text(encoding="utf-8"))
    kecoglu = " ".join(text(ROOT / "docs" / "papers" / "kecoglu.md").split())
    least = f"{vessels['config']['least_probability']:g}".lstrip("0")
    assert f"if its mean probability is above {least};" in kecoglu
    assert f"with probabilities above {f'{UNLIKELY:g}'.lstrip('0')}, are a lesion" in kecoglu
    factor, certainty = (f"{vessels['calibration'][name]:g}".lstrip("0") for name in (FACTOR, CERTAINTY))
    assert f"The factor on all scores, {factor} [" in kecoglu
    assert f"the limit of certainty, {certainty}," in kecoglu


@pytest.mark.parametrize("table", sorted((ROOT / "docs" / "results").glob("*.csv")), ids=lambda table: table.name)
def test_rows_of_results_state_how_they_were_made(table):
    """A row without command, date and commit is not measured, such as a limit that others are held against."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = [{name.lower(): cell for name, cell in row.items()} for row in csv.DictReader(stream)]
    missing = ORIGIN - set(rows[0])
    assert not missing
    for row in rows:
        stated = [bool(row[name]) for name in ("command", "date", "commit")]
        assert all(stated) or not any(stated), row
        unknown = [cell for cell in row.values() if "not recorded" in cell]
        assert not unknown, f"{unknown} in {row}: measure it again or leave it out."


UNREPEATABLE = {
    "da0e9428": "rewritten before it was published; the page of results says so",
    "e0b01e66-changed": "had changes that were not stored; the page of models says so",
}
"""Commits that tables or cards name and nobody can go back to, and why they stay."""


def named_commits() -> dict[str, str]:
    """File by commit, of eight digits, that a table of results or the card of a model names."""
    commits = {}
    for table in sorted((ROOT / "docs" / "results").glob("*.csv")):
        with table.open(encoding="utf-8", newline="") as stream:
            commits |= {row["commit"]: table.name for row in csv.DictReader(stream) if row["commit"]}
    for card in sorted((ROOT / "CACScoring" / "CACScoringLib" / "Resources" / "Models").rglob("*.json")):
        commit, *changed = json.loads(card.read_text(encoding="utf-8"))["training"]["commit"].split("-")
        commits["-".join([commit[:8], *changed])] = card.name
    return commits


def test_commits_of_tables_and_cards_are_in_the_history():
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if not (ROOT / ".git").exists() or git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history is not here")
    history = git("rev-list", "HEAD").split()
    named = named_commits()
    unknown = {name for name in named if not any(commit.startswith(name) for commit in history)}
    assert {name: named[name] for name in unknown} == {name: named[name] for name in UNREPEATABLE if name in named}
    assert not UNREPEATABLE.keys() - named.keys(), "UNREPEATABLE names what nothing cites"


def test_maps_evaluated_as_published_cite_the_limit_in_use():
    """Rows state the published limit of the classifier that comes with CAC; with another one they are measured anew."""
    card = find_model("slices").card
    limit = operating_point(card, PUBLISHED).threshold
    with (ROOT / "docs" / "results" / "cyclegan-published.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not row["map and floor"].startswith(READER)]
    assert rows
    for row in rows:
        used = row["classifier"], float(row["slice limit"])
        assert used == (card.sha256, limit), f"Run Testing/Benchmarks/as_published.py: {row['map and floor']} is stale."
