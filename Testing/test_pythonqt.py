"""Code that fails in PythonQt but not in PySide6, so that the desktop host cannot detect it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for pattern in ("CAC*/CAC*.py", "CAC*/CAC*Lib/panel/**/*.py", "CAC*/SegmentEditor*/**/*.py")
    for file in ROOT.glob(pattern)
)
WRAPPED = ("qt", "ctk")


def is_wrapped(node: ast.AST) -> bool:
    """True if an expression begins at a module of PythonQt, such as qt.Qt.AlignLeft."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in WRAPPED


def names_wrapped(node: ast.AST) -> bool:
    return any(is_wrapped(part) for part in ast.walk(node))


def complaint(node: ast.AST) -> str:
    """Return the fault of a node of the syntax tree; empty without one."""
    if isinstance(node, ast.ClassDef) and any(map(is_wrapped, node.bases)):
        calls = [part for part in ast.walk(node) if isinstance(part, ast.Attribute) and part.attr != "__init__"]
        if any(isinstance(part.value, ast.Call) and ast.unparse(part.value.func) == "super" for part in calls):
            return "super() does not find Qt's functions: name the class"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        if names_wrapped(node.args[1]):
            return "no class of Qt's is another's subclass: ask inherits() or className()"
    elif isinstance(node, ast.Call) and is_wrapped(node.func) and node.keywords:
        return "Qt's functions take no keywords"
    if isinstance(node, ast.Compare) and any(map(is_wrapped, (node.left, *node.comparators))):
        if any(isinstance(part, (ast.Is, ast.IsNot)) for part in node.ops):
            return "enumerations are new integers each time: compare with =="
        if is_wrapped(node.comparators[-1]) and isinstance(node.ops[-1], (ast.In, ast.NotIn)):
            return "nothing is in an enumeration, which is an integer: use &"
    if isinstance(node, ast.Attribute) and node.attr in ("name", "value") and is_wrapped(node):
        return "enumerations are integers, without name and value"
    return ""


def complaints(text: str) -> list[str]:
    reasons = [(node, complaint(node)) for node in ast.walk(ast.parse(text))]
    return [f"line {node.lineno}: {reason}" for node, reason in reasons if reason]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_panels(file):
    assert complaints(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "class A(qt.QWidget):\n def resizeEvent(self, event): super().resizeEvent(event)",
        "isinstance(widget, (qt.QLabel, qt.QWidget))",
        "ctk.ctkCollapsibleButton(parent=None)",
        "qt.QFileDialog.getOpenFileName(parent, caption='x')",
        "state is qt.Qt.Checked",
        "flag in qt.Qt.Alignment",
        "qt.Qt.Checked.value",
    ],
)
def test_faults_are_found(text):
    assert len(complaints(text)) == 1
