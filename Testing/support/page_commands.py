"""Commands that the pages give to users, as they stand there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\./)?cac\s")


@dataclass(frozen=True)
class PageCommand:
    """A command of a page.

    Attributes:
        text: Words as they stand on the page, without a comment.
        is_inline: True for code within a sentence or a table, which may name a command without its arguments.
    """

    text: str
    is_inline: bool

    @property
    def words(self) -> list[str]:
        """Arguments of `cac`."""
        return shlex.split(self.text)[1:]


def commands_of(page: Path) -> list[PageCommand]:
    """Return the commands of `cac` in blocks and in backticks, in the order of the page.

    Raises ValueError for a command in a comment of a block: it is no line that a user can copy.
    """
    commands = []
    text = re.sub(r"<!-- .*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for part in re.finditer(rf"{FENCE.pattern}|`([^`]+)`", text, re.MULTILINE | re.DOTALL):
        _, block, inline = part.groups()
        lines = [inline.replace("\n", " ")] if block is None else block.replace("\\\n", " ").splitlines()
        for line in map(str.strip, lines):
            command, _, comment = re.sub(r"\s#\s|^#", "\0", line, count=1).partition("\0")
            if block is not None and "./cac " in comment:
                raise ValueError(f"{page.name}: a comment holds a command: {comment}")
            if COMMAND.match(f"{command} "):
                commands.append(PageCommand(" ".join(command.split()), block is None))
    return commands
