"""What PythonQt does otherwise than PySide6 and the desktop host cannot show: the panels' text is searched for it."""

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
    """Whether an expression begins at a module that PythonQt makes: qt.Qt.AlignLeft."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in WRAPPED


def names_wrapped(node: ast.AST) -> bool:
    return any(is_wrapped(each) for each in ast.walk(node))


def complaint(node: ast.AST) -> str:
    """What is wrong with a part of a program; empty where nothing is."""
    if isinstance(node, ast.ClassDef) and any(map(is_wrapped, node.bases)):
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and each.attr != "__init__"]
        if any(isinstance(each.value, ast.Call) and ast.unparse(each.value.func) == "super" for each in calls):
            return "super() does not find Qt's functions: name the class"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        if names_wrapped(node.args[1]):
            return "no class of Qt's is another's subclass: ask inherits() or className()"
    elif isinstance(node, ast.Call) and is_wrapped(node.func) and node.keywords:
        return "Qt's functions take no keywords"
    if isinstance(node, ast.Compare) and any(map(is_wrapped, (node.left, *node.comparators))):
        if any(isinstance(each, (ast.Is, ast.IsNot)) for each in node.ops):
            return "enumerations are new integers each time: compare with =="
        if is_wrapped(node.comparators[-1]) and isinstance(node.ops[-1], (ast.In, ast.NotIn)):
            return "nothing is in an enumeration, which is an integer: use &"
    if isinstance(node, ast.Attribute) and node.attr in ("name", "value") and is_wrapped(node):
        return "enumerations are integers, without name and value"
    return ""


def complaints(text: str) -> list[str]:
    found = [(node, complaint(node)) for node in ast.walk(ast.parse(text))]
    return [f"line {node.lineno}: {what}" for node, what in found if what]


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
def test_what_is_complained_of(text):
    assert len(complaints(text)) == 1
