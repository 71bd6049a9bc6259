"""A command's parser, whose options are declared when it is used."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from ..core.text import printable


class CommandParser(argparse.ArgumentParser):
    """The parser of the command line, of a command, or of a command's action.

    Some commands take their options from modules that load slowly, so a command's options are declared when its own
    are parsed: `cac --help` and another command do without them.

    declare: adds the options to the parser it is given.
    """

    def __init__(self, *args, declare: Callable[[CommandParser], None] | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._declare = declare

    def parse_known_args(self, args=None, namespace=None):
        self.declare()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, message=True))

    def declare(self) -> None:
        """Declare the options, once."""
        declare, self._declare = self._declare, None
        if declare is not None:
            declare(self)


def declared_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name, with all their options declared; empty where it has none."""
    if isinstance(parser, CommandParser):
        parser.declare()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                declared_commands(command)
            return dict(action.choices)
    return {}
