"""Pages, help, warnings and docstrings are free of a few known patterns of bad English."""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from CACScoringLib.core.warning_codes import ADVICE
from CACTrainingLib.cli import main as command_line

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))  # as MkDocs does

import warning_tables  # noqa: E402

PATTERNS = re.compile(
    r"\b(told|tells? (of|apart|from|how|what|which)|nine times (of|out of) ten|feigns?|sways?|seldom|run again,|goes on"
    r"|of which then|what lies elsewhere)\b",
    re.IGNORECASE,
)
OPENINGS = {"Of", "As", "What", "Which", "Where", "Whether", "Whose"}
"""First words that no docstring has; it begins with a verb or a noun."""
UNCHECKED_ROOMS = ("panel", "report")
"""Rooms whose docstrings are not checked, in both libraries."""


def test_pages_are_in_plain_english():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 30
    assert [
        (page.name, match[0]) for page in pages if (match := PATTERNS.search(page.read_text(encoding="utf-8")))
    ] == []


def help_texts(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (text for text in (parser.description, parser.epilog) if text)
    for action in parser._actions:
        yield action.help or ""
        if isinstance(action, argparse._SubParsersAction):
            yield from (choice.help or "" for choice in action._choices_actions)
            for command in action.choices.values():
                yield from help_texts(command)


def test_help_is_in_plain_english():
    assert [text for text in help_texts(command_line.complete_parser()) if PATTERNS.search(text)] == []


@pytest.mark.long
def test_warnings_are_in_plain_english():
    messages = [message for texts in warning_tables.messages_by_code().values() for message in texts]
    assert [text for text in (*messages, *ADVICE.values(), *ADVICE) if PATTERNS.search(text.replace("-", " "))] == []


def documented(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            name = getattr(node, "name", "")
            if not name.startswith("_"):
                yield name, text


def test_docstrings_begin_with_a_verb_or_a_noun():
    files = [*ROOT.glob("CAC*/*Lib/**/*.py")]
    assert len(files) > 200
    faults = [
        f"{file.relative_to(ROOT)}: {name}: {text.splitlines()[0]}"
        for file in files
        if not set(UNCHECKED_ROOMS) & set(file.parts)
        for name, text in documented(file)
        if text.split()[0] in OPENINGS or PATTERNS.search(text)
    ]
    assert faults == []
