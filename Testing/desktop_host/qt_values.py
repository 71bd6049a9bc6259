"""PythonQt's behaviour of Qt's values: truth, enumerations as integers, tuples, and no keywords.

`qt_manner` applies these to PySide6's own classes, once per process. Follows MeVisLab/pythonqt
generator/abstractmetalang.cpp (getDefaultNonZeroFunction), src/PythonQt.cpp (createNewPythonQtEnumWrapper),
src/PythonQtConversion.cpp and src/PythonQtSlot.cpp.
"""

from __future__ import annotations

import enum
import functools

# Functions that decide on truth, in the order of PythonQt's generator (AbstractMetaClass::getDefaultNonZeroFunction).
_TRUTHS = (("isEmpty", False), ("isValid", True), ("isNull", False))

# Functions of Qt that return lists, which are tuples in PythonQt.
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

# Functions that return a name and the filter in PySide6, but only the name in PythonQt.
_NAME_AND_FILTER = ("getOpenFileName", "getOpenFileNames", "getSaveFileName")


def as_tuple(value):
    """Return lists as tuples, as PythonQt does, and other values unchanged."""
    return tuple(value) if isinstance(value, list) else value


def give_truth(kind: type, is_qobject: bool) -> None:
    """Make instances false if they are empty, invalid, null or deleted by Qt."""
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
    """Refuse keywords in constructors, derived classes included (PythonQtSlotFunction_CallImpl)."""
    construct = kind.__init__

    # To read the docstring of a constructor, PySide6 would parse the signatures of its whole class.
    @functools.wraps(construct, ("__module__", "__name__", "__qualname__"))
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
    """Let an enumeration's values compare, convert to bool and index as integers, without members.

    PythonQt derives enumerations from int, but PySide6's functions require their own values.
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
    def compare(self, operand):
        operand = _number(operand) if isinstance(operand, enum.Enum) else operand
        return getattr(_number(self), name)(operand)

    return compare


def enumerations(kind: type) -> list[type[enum.Enum]]:
    """Return the enumerations in a class."""
    return [member for member in vars(kind).values() if isinstance(member, type) and issubclass(member, enum.Enum)]
