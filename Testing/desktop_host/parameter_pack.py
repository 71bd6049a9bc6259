"""Double of parameterPack (Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/parameterPack.py)."""

from __future__ import annotations

import copy
import typing

import slicer

from .parameter_storage import split, storage_of
from .parameter_validators import Default


def parameterPack(kind: type | None = None):
    """Class decorator: a group of typed members, which a parameter node can hold as one parameter."""
    return _pack if kind is None else _pack(kind)


def _pack(kind: type) -> type:
    hints = typing.get_type_hints(kind, include_extras=True)
    if not hints:
        raise ValueError(f"{kind.__name__} has no members")
    kind.memberHints = hints
    kind._member_defaults = {name: default_of(kind, name, hint) for name, hint in hints.items()}
    for name, hint in hints.items():
        setattr(kind, name, _member(name, storage_of(hint)))
    kind.__init__ = _init_then(vars(kind)["__init__"]) if "__init__" in vars(kind) else _init
    kind.__eq__ = lambda self, other: all(getattr(self, name) == getattr(other, name, None) for name in hints)
    kind.__hash__ = None
    kind.__repr__ = _repr
    kind.isParameterPackType = True
    kind.getValue = get_value
    kind.setValue = set_value
    kind.dataType = classmethod(lambda cls, name: data_type(cls.memberHints, name))
    return kind


def _init(self, *values, **named) -> None:
    given = dict(zip(self.memberHints, values, strict=False)) | named
    unknown = set(given) - set(self.memberHints)
    if unknown or len(values) > len(self.memberHints):
        raise TypeError(f"{type(self).__name__} has no members {sorted(unknown)}")
    for name, default in self._member_defaults.items():
        setattr(self, name, given.get(name, copy.copy(default)))


def _init_then(own):
    def init(self, *values, **named) -> None:
        _init(self)
        own(self, *values, **named)

    return init


def _member(name: str, storage) -> property:
    def write(self, value) -> None:
        storage.check(value)
        self.__dict__[f"_{name}"] = value
        if "_save" in self.__dict__:
            self._save(self)

    return property(lambda self: self.__dict__[f"_{name}"], write)


def _repr(self) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.memberHints)})"


def default_of(kind: type, name: str, hint):
    if hasattr(kind, name):
        return getattr(kind, name)
    for annotation in split(hint)[1]:
        if isinstance(annotation, Default):
            return annotation.value
    return storage_of(hint).default()


def data_type(hints: dict, name: str):
    """The hint of a member, whose name may be dotted."""
    first, _, rest = name.partition(".")
    if first not in hints:
        raise ValueError(f"Cannot find a parameter with the given name: {first}")
    return data_type(split(hints[first])[0].memberHints, rest) if rest else hints[first]


def get_value(owner, name: str):
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


def set_value(owner, name: str, value) -> None:
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, last, value)


class PackStorage:
    """A pack in a parameter node: each member under "name.member"."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._members = {name: storage_of(hint) for name, hint in kind.memberHints.items()}

    def default(self):
        return self._kind()

    def check(self, value) -> None:
        if not isinstance(value, self._kind):
            raise ValueError(f"Value must be of type {self._kind.__name__}, is {value!r}")

    def is_in(self, node, name: str) -> bool:
        first = next(iter(self._members))
        return self._members[first].is_in(node, f"{name}.{first}")

    def write(self, node, name: str, value) -> None:
        self.check(value)
        with slicer.util.NodeModify(node):
            for member, storage in self._members.items():
                storage.write(node, f"{name}.{member}", getattr(value, member))

    def read(self, node, name: str):
        """A pack that writes what is changed in it."""
        pack = self._kind.__new__(self._kind)
        for member, storage in self._members.items():
            pack.__dict__[f"_{member}"] = storage.read(node, f"{name}.{member}")
        pack.__dict__["_save"] = lambda changed: self.write(node, name, changed)
        return pack

    def remove(self, node, name: str) -> None:
        for member, storage in self._members.items():
            storage.remove(node, f"{name}.{member}")
