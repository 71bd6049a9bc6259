"""The reference of commands: usage, arguments, meanings and defaults, from the parsers of the command line."""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator

from CACTrainingLib.cli.main import complete_parser


def commands_as_markdown(parser: argparse.ArgumentParser | None = None) -> str:
    """A section for every command of a parser (the command line's), and one below it for each command of its own."""
    return "\n\n".join(_sections((), complete_parser() if parser is None else parser))


def cell(text: str) -> str:
    """Text as it stands in a table of Markdown, with code between backticks."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    return "".join(code(part) if n % 2 else re.sub(r"([|*_<\[\\])", r"\\\1", part) for n, part in enumerate(parts))


def code(text: str) -> str:
    """Code as it stands in a table: on repository hosts a bar divides cells within backticks too."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _sections(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[str]:
    for name, title in _titles(parser).items():
        command = _subparsers(parser).choices[name]
        yield _section((*words, name), command, title)
        yield from _sections((*words, name), command)


def _subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction | None:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def _titles(parser: argparse.ArgumentParser) -> dict[str, str]:
    """What each command of a parser is for; those without a help text are hidden, as old names are."""
    subparsers = _subparsers(parser)
    named = [] if subparsers is None else subparsers._choices_actions
    return {action.dest: action.help or "" for action in named if action.help != argparse.SUPPRESS}


def _section(words: tuple[str, ...], parser: argparse.ArgumentParser, title: str) -> str:
    said = parser.description or title
    parts = [f"{'#' * (len(words) + 1)} {' '.join(words)}", cell(said[:1].upper() + said[1:]).rstrip(".") + "."]
    if _subparsers(parser) is None:
        parts.append(f"```\n{_usage(parser)}\n```")
    rows = [_row(parser, action) for action in parser._actions if _is_shown(action)]
    if rows:
        parts.append("\n".join(["| argument | meaning | default |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _usage(parser: argparse.ArgumentParser) -> str:
    """What must be given, on one line: the options are in the table."""
    words = [f"./{parser.prog}"]
    for action in filter(_is_shown, parser._actions):
        if action.required:
            words.append(f"{action.option_strings[-1]} {_value(action)}" if action.option_strings else _value(action))
    for group in parser._mutually_exclusive_groups:
        if group.required:
            named = (f"{action.option_strings[-1]} {_value(action)}".strip() for action in group._group_actions)
            words.append(f"({' | '.join(named)})")
    optional = [action for action in parser._actions if _is_shown(action) and not action.required]
    words += [f"[{_value(action)}]" for action in optional if not action.option_strings]
    return " ".join([*words, "[OPTIONS]"] if any(action.option_strings for action in optional) else words)


def _is_shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    return not hidden and action.help != argparse.SUPPRESS


def _value(action: argparse.Action) -> str:
    """The placeholder of an argument's value, as argparse prints it."""
    if action.nargs == 0:
        return ""
    formatter = argparse.HelpFormatter("")
    name = action.dest.upper() if action.option_strings else action.dest
    text = formatter._format_args(action, name)
    return text[1:-1] if action.nargs == "?" else text


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = _value(action)
    names = [code(" ".join(filter(None, (option, value)))) for option in action.option_strings] or [code(value)]
    meaning = argparse.HelpFormatter(parser.prog)._expand_help(action) if action.help else ""
    if action.choices is not None and action.metavar is not None:
        meaning += f" ({', '.join(map(str, action.choices))})"
    return f"| {', '.join(names)} | {cell(meaning)} | {_default(action)} |"


def _default(action: argparse.Action) -> str:
    default = action.default
    if action.required:
        return "required"
    if default is None or isinstance(default, bool) or default in ([], argparse.SUPPRESS):
        return ""
    if "(default:" in (action.help or ""):
        return ""
    shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    return f"`{shown}`"
