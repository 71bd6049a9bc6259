"""The reference of warnings: severity, advice and messages of checks.csv, and messages of warnings made in code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from command_tables import cell

import CACTrainingLib
from CACScoringLib.core.files import resource_rows
from CACScoringLib.core.warning_codes import ADVICE, OPTIONS, SEVERE

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


def messages_by_code() -> dict[str, list[str]]:
    """The messages of every code, with {what varies} in braces."""
    found: dict[str, list[str]] = {}
    for row in (*resource_rows("checks.csv"), *resource_rows("checks.csv", CACTrainingLib.__name__)):
        message = re.sub(r"(\{\w+)[^}]*", r"\1", row["message"])
        is_clause = message[:1].islower()  # of another row's message
        if message and not is_clause and message not in found.setdefault(row["code"], []):
            found[row["code"]].append(message)
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
