"""The reference of warnings: severity, advice, messages and limits of their blocks, and messages made in code."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

from command_tables import cell

import CACTrainingLib  # noqa: F401, which declares its warnings
from CACScoringLib.core.warning_codes import ADVICE, CHECKS, OPTIONS, SEVERE

ROOT = Path(__file__).parents[2]


def warnings_as_markdown() -> str:
    """One table: code, severity, message or messages, advice."""
    said = messages_by_code()
    rows = [
        f"| `{code}` | {'severe' if code in SEVERE else ''} | {'<br>'.join(map(cell, said[code]))} | {cell(advice)} "
        f"{f'`{OPTIONS[code]}` ' if code in OPTIONS else ''}|"
        for code, advice in sorted(ADVICE.items())
    ]
    return "\n".join(["| code | severity | message | what to do |", "|---|---|---|---|", *rows])


def checks_as_markdown() -> str:
    """One table: warning, the quantity that it depends on, its limits, and its values in sound people."""
    rows = [
        f"| `{check.code}` | {cell(check.quantity)} | {_limits(check.low, check.high)} | {cell(check.sound)} |"
        for check in CHECKS.values()
    ]
    return "\n".join(["| code | quantity | no warning | in sound people |", "|---|---|---|---|", *rows])


def _limits(low: float, high: float) -> str:
    if math.isinf(low):
        return f"up to {high:g}"
    return f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"


def messages_by_code() -> dict[str, list[str]]:
    """The messages of every code, with {what varies} in braces."""
    found: dict[str, list[str]] = {}
    for check in CHECKS.values():
        message = re.sub(r"(\{\w+)[^}]*", r"\1", check.message)
        is_clause = message[:1].islower()  # of a message made in code
        if not is_clause and message not in found.setdefault(check.code, []):
            found[check.code].append(message)
    for file in [*ROOT.glob("CACScoring/CACScoringLib/**/*.py"), *ROOT.glob("CACTraining/CACTrainingLib/**/*.py")]:
        for code, message in _made_in(ast.parse(file.read_text(encoding="utf-8")), {}):
            if code in ADVICE and message not in found.setdefault(code, []):
                found[code].append(message)
    return found


def _made_in(node: ast.AST, texts: dict[str, str]) -> list[tuple[str, str]]:
    """Code and message of every warning that is made below a node of the syntax tree.

    texts: the texts and numbers that names stand for, as assigned before, in this function or the module.
    """
    made = []
    if isinstance(node, ast.FunctionDef):
        texts = dict(texts)
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() | ast.JoinedStr() | ast.BinOp()):
            texts[name] = _text(node.value, texts)
        case ast.Call(func=ast.Name(id="ScanWarning"), args=[code, message, *_]):  # else it is read back from a file
            made.append((_text(code, texts), _text(message, texts)))
    for child in ast.iter_child_nodes(node):
        made += _made_in(child, texts)
    return made


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    """The text of an expression; what is not known before it runs, in braces, by its name where it has one."""
    if isinstance(node, ast.Constant):
        return f"{node.value:g}" if isinstance(node.value, float) else str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.FormattedValue) else part for part in node.values)
        return "".join(_text(part, texts) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, texts) + _text(node.right, texts)
    if isinstance(node, ast.Name):
        return texts.get(node.id, f"{{{node.id.lower()}}}")
    return f"{{{node.attr}}}" if isinstance(node, ast.Attribute) else "{…}"
