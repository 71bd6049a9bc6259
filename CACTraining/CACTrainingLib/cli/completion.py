"""The command `completion`: what a shell completes after `cac`."""

from __future__ import annotations

import argparse
from typing import Annotated

from CACScoringLib.cli.main import declared_commands
from CACScoringLib.cli.options import command
from CACScoringLib.core.options import argument
from CACScoringLib.core.progress import Progress

SHELLS = ("bash", "zsh")

SCRIPT = """\
_cac() {{
    local words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _cac cac ./cac
"""
"""Function of bash; names of files complete where no word does."""

FOR_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def completion(shell: Annotated[str, argument(choices=SHELLS)], progress: Progress) -> None:
    """Print the completion of commands and options for a shell, to be read by it: see docs/user/installation.md.

    Args:
        shell: The shell.
    """
    from .main import complete_parser

    print((FOR_ZSH if shell == "zsh" else "") + script(complete_parser()), end="")


def script(parser: argparse.ArgumentParser) -> str:
    """Return the script of a parser's commands."""
    commands = declared_commands(parser)
    cases = (f'            {name}) words="{" ".join(_words(parser))}" ;;' for name, parser in commands.items())
    return SCRIPT.format(commands=" ".join([*commands, "--help", "--version"]), cases="\n".join(cases))


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Return the actions and long options of a command, and the options of its actions."""
    actions = declared_commands(parser)
    parsers = [parser, *actions.values()]
    options = [name for part in parsers for name in part._option_string_actions if name.startswith("--")]
    return list(dict.fromkeys([*actions, *options]))


add_arguments = command(completion, interrupted="Interrupted.").declare
