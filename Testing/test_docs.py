"""The README and the pages under docs: valid links, and commands of the command line."""

import argparse
import functools
import re
import shlex
from pathlib import Path

import pytest

from CACTrainingLib.cli import main as command_line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
NOT_OURS = {"--testing", "--no-splash", "--additional-module-paths", "--python-code", "--python-script"}  # of Slicer


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings; GitHub and MkDocs agree for plain headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Local links and pictures of a page without a file or heading."""
    broken = []
    for target in LINK.findall(FENCE.sub("", text(page))):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


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
def parser_of():
    """Function that returns the parser of `./cac WORDS`."""
    return functools.cache(lambda words: command_line.complete_parser())


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def is_placeholder(word: str) -> bool:
    return word.isupper() or "…" in word


def faults(words: list[str], parser_of) -> list[str]:
    """Commands and options that the parser does not know."""
    if words[:1] == ["test"]:
        return []  # the rest is pytest's
    parser = parser_of(tuple(words[:2]))  # commands load their options by these
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
def test_links_and_pictures_lead_to_files_and_headings(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page, parser_of):
    wrong = [(words, unknown) for words in command_lines(text(page)) if (unknown := faults(words, parser_of))]
    assert wrong == []


def test_options_named_alone_exist_in_some_command(parser_of):
    def options(parser: argparse.ArgumentParser) -> set[str]:
        return set(parser._option_string_actions).union(*map(options, subcommands(parser).values()))

    options_of_all = options(parser_of(("train",))) | NOT_OURS
    for page in PAGES:
        named = re.findall(r"`(--[\w-]+)", FENCE.sub("", text(page)))
        assert (name(page), set(named) - options_of_all) == (name(page), set())


def test_every_page_is_reached_from_the_site():
    listed = re.findall(r": ([\w/-]+\.md)$", text(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(name(page).removeprefix("docs/") for page in PAGES[1:])


def test_pictures_of_the_same_name_are_the_same():
    screenshots = {picture.name: picture for picture in (ROOT / "Resources" / "Screenshots").iterdir()}
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.name not in screenshots or picture.read_bytes() == screenshots[picture.name].read_bytes()


def test_the_architecture_names_and_draws_files_that_are_there():
    page = text(ROOT / "docs" / "developer" / "architecture.md")
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+)(?:\.py)?`", page))
    libraries = [ROOT / "CACScoring" / "CACScoringLib", ROOT / "CACTraining" / "CACTrainingLib"]
    assert [file for file in sorted(named) if not any((folder / f"{file}.py").is_file() for folder in libraries)] == []
    listed = re.findall(r"`([a-z_/]+)`", page[page.index("| command |") : page.index("[![The files of the path")])
    drawn = re.findall(r">([a-z_]+)</text>", text(ROOT / "docs" / "pictures" / "scan-path.svg"))
    assert listed
    assert {file.rpartition("/")[2] for file in listed} <= set(drawn)


def test_benchmarks_are_listed():
    listed = re.findall(r"`(\w+\.py)\b", text(ROOT / "docs" / "developer" / "benchmarks.md"))
    assert sorted(listed) == sorted(file.name for file in (ROOT / "Testing" / "Benchmarks").glob("*.py"))
