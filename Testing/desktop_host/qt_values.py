"""Qt's values as PythonQt gives them: what is false, enumerations that are integers, tuples, and no keywords.

Called for PySide6's own classes by `qt_manner`, once per process.
"""

from __future__ import annotations

import enum
import functools

# In this order, as PythonQt's generator looks for them (AbstractMetaClass::getDefaultNonZeroFunction).
_TRUTHS = (("isEmpty", False), ("isValid", True), ("isNull", False))

# Functions of Qt that give lists: tuples in PythonQt.
_LISTS = {
    "QObject": ("children", "findChildren"),
    "QWidget": ("actions",),
    "QItemSelectionModel": ("selectedColumns", "selectedIndexes", "selectedRows"),
    "QListWidget": ("findItems", "selectedItems"),
    "QTableWidget": ("findItems", "selectedItems", "selectedRanges"),
    "QTreeWidget": ("findItems", "selectedItems"),
    "QFileDialog": ("selectedFiles",),
    "QSettings": ("allKeys", "childGroups", "childKeys", "value"),
}

# Functions that give a name and the filter in PySide6, and the name alone in PythonQt.
_NAME_AND_FILTER = ("getOpenFileName", "getOpenFileNames", "getSaveFileName")


def as_tuple(value):
    """PythonQt makes tuples of Qt's lists."""
    return tuple(value) if isinstance(value, list) else value


def give_truth(kind: type, is_qobject: bool) -> None:
    """What is false: an empty, invalid or null value, an empty layout or menu, and what Qt has deleted."""
    for name, meaning in _TRUTHS:
        if callable(getattr(kind, name, None)):
            kind.__bool__ = _truth(getattr(kind, name), meaning, is_qobject)
            return
    if is_qobject:
        kind.__bool__ = _is_there


def _is_there(instance) -> bool:
    import shiboken6

    return shiboken6.isValid(instance)


def _truth(function, meaning: bool, is_qobject: bool):
    def truth(self) -> bool:
        return (not is_qobject or _is_there(self)) and function(self) is meaning

    return truth


def refuse_keywords(kind: type) -> None:
    """PythonQt takes no keywords (PythonQtSlotFunction_CallImpl): neither on a class nor on one derived in Python."""
    construct = kind.__init__

    @functools.wraps(construct)
    def init(self, *arguments, **keywords) -> None:
        if keywords:
            raise ValueError(f"Called {kind.__name__} with keyword arguments ({', '.join(keywords)})")
        construct(self, *arguments)

    kind.__init__ = init


def give_lists(kind: type) -> None:
    for name in _LISTS.get(kind.__name__, ()):
        function = getattr(kind, name)
        setattr(kind, name, _giving_tuple(function))
    if kind.__name__ == "QFileDialog":
        for name in _NAME_AND_FILTER:
            setattr(kind, name, staticmethod(_without_filter(getattr(kind, name))))


def _giving_tuple(function):
    @functools.wraps(function)
    def call(self, *arguments):
        return as_tuple(function(self, *arguments))

    return call


def _without_filter(function):
    return lambda *arguments: as_tuple(function(*arguments)[0])


def make_integers(kind: type[enum.Enum]) -> None:
    """An enumeration's values compare, count as true and index as integers do; nothing is in them.

    PythonQt derives enumerations from int. PySide6's functions still want their own values.
    """
    kind.__int__ = kind.__index__ = _number
    kind.__bool__ = lambda self: _number(self) != 0
    kind.__hash__ = lambda self: hash(_number(self))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(kind, f"__{name}__", _comparison(f"__{name}__"))
    kind.__contains__ = kind.__iter__ = kind.__len__ = None


def _number(value: enum.Enum) -> int:
    return int(value.value)


def _comparison(name: str):
    def compare(self, other):
        other = _number(other) if isinstance(other, enum.Enum) else other
        return getattr(_number(self), name)(other)

    return compare


def enumerations(kind: type) -> list[type[enum.Enum]]:
    """Those that a class holds."""
    return [each for each in vars(kind).values() if isinstance(each, type) and issubclass(each, enum.Enum)]
