"""How typed parameters lie in a parameter node (Slicer/Slicer Base/Python/slicer/parameterNodeWrapper/serializers.py).

Numbers and texts by str(), booleans as "True" and "False", enumerations by name, nodes as a reference of the
parameter's name beside an empty text; the parts of lists, tuples, dicts, unions and packs under "name.part".
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import MutableMapping, MutableSequence

import slicer

from .parameter_validators import Validator


def split(hint) -> tuple[object, tuple]:
    """A type hint as its type and its annotations."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *annotations = typing.get_args(hint)
        return kind, tuple(annotations)
    return hint, ()


def is_union(kind) -> bool:
    return typing.get_origin(kind) is typing.Union or isinstance(kind, types.UnionType)


def is_pack(kind) -> bool:
    return getattr(kind, "isParameterPackType", False)


class Storage:
    """Where and how values of one type lie. This class: one parameter, as text."""

    def __init__(self, kind: type, to_text=str, from_text=None, empty=None) -> None:
        self._kind, self._to_text, self._from_text, self._empty = kind, to_text, from_text or kind, empty

    def default(self):
        return self._kind() if self._empty is None else self._empty

    def check(self, value) -> None:
        accepted = (int, float) if self._kind is float else self._kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and self._kind in (int, float)):
            raise TypeError(f"Value must be of type {self._kind.__name__}, is {value!r}")

    def is_in(self, node, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node, name: str, value) -> None:
        self.check(value)
        node.SetParameter(name, self._to_text(value))

    def read(self, node, name: str):
        return self._from_text(node.GetParameter(name))

    def remove(self, node, name: str) -> None:
        node.UnsetParameter(name)


class NodeStorage(Storage):
    def default(self):
        return None

    def check(self, value) -> None:
        if value is not None and not isinstance(value, self._kind):
            raise TypeError(f"Value must be of type {self._kind.__name__}, is {value!r}")

    def write(self, node, name: str, value) -> None:
        self.check(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node, name: str):
        return node.GetNodeReference(name)

    def remove(self, node, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneStorage(Storage):
    def __init__(self) -> None:
        super().__init__(type(None), lambda value: "True", lambda text: None)

    def default(self):
        return None


class TupleStorage:
    def __init__(self, parts: list) -> None:
        self._parts = parts

    def default(self):
        return tuple(part.default() for part in self._parts)

    def check(self, value) -> None:
        if len(value) != len(self._parts):
            raise ValueError(f"Value must have {len(self._parts)} parts, is {value!r}")
        for part, each in zip(self._parts, value, strict=True):
            part.check(each)

    def is_in(self, node, name: str) -> bool:
        return self._parts[0].is_in(node, f"{name}.0")

    def write(self, node, name: str, value) -> None:
        self.check(tuple(value))
        for index, (part, each) in enumerate(zip(self._parts, value, strict=True)):
            part.write(node, f"{name}.{index}", each)

    def read(self, node, name: str):
        return tuple(part.read(node, f"{name}.{index}") for index, part in enumerate(self._parts))

    def remove(self, node, name: str) -> None:
        for index, part in enumerate(self._parts):
            part.remove(node, f"{name}.{index}")


class ListStorage:
    def __init__(self, element) -> None:
        self._element, self._length = element, Storage(int)

    def default(self):
        return []

    def check(self, value) -> None:
        for each in value:
            self._element.check(each)

    def is_in(self, node, name: str) -> bool:
        return self._length.is_in(node, f"{name}.len")

    def write(self, node, name: str, value) -> None:
        value = list(value)
        self.check(value)
        self.remove(node, name)
        for index, each in enumerate(value):
            self._element.write(node, f"{name}.{index}", each)
        self._length.write(node, f"{name}.len", len(value))

    def read(self, node, name: str):
        count = self._length.read(node, f"{name}.len") if self.is_in(node, name) else 0
        return ObservedList(
            [self._element.read(node, f"{name}.{index}") for index in range(count)], saver(self, node, name)
        )

    def remove(self, node, name: str) -> None:
        if self.is_in(node, name):
            for index in range(self._length.read(node, f"{name}.len")):
                self._element.remove(node, f"{name}.{index}")
            self._length.remove(node, f"{name}.len")


class DictStorage:
    """A list of pairs, so that the order is kept."""

    def __init__(self, key, value) -> None:
        self._pairs = ListStorage(TupleStorage([key, value]))
        self.is_in, self.remove = self._pairs.is_in, self._pairs.remove

    def default(self):
        return {}

    def check(self, value) -> None:
        self._pairs.check(list(value.items()))

    def write(self, node, name: str, value) -> None:
        self._pairs.write(node, name, value.items())

    def read(self, node, name: str):
        return ObservedDict(dict(self._pairs.read(node, name)), saver(self, node, name))


class UnionStorage:
    def __init__(self, members: list) -> None:
        self._members = members

    def default(self):
        optional = len(self._members) == 2 and isinstance(self._members[1], NoneStorage)
        return None if optional else self._members[0].default()

    def _place(self, value) -> int:
        for index, member in enumerate(self._members):
            # None fits a node's storage as well, but has one of its own.
            if value is None and not isinstance(member, NoneStorage):
                continue
            try:
                member.check(value)
            except (TypeError, ValueError, AttributeError):
                continue
            return index
        raise TypeError(f"No type of the union accepts {value!r}")

    def check(self, value) -> None:
        self._place(value)

    def is_in(self, node, name: str) -> bool:
        return any(member.is_in(node, f"{name}.{index}") for index, member in enumerate(self._members))

    def write(self, node, name: str, value) -> None:
        index = self._place(value)
        self.remove(node, name)
        self._members[index].write(node, f"{name}.{index}", value)

    def read(self, node, name: str):
        for index, member in enumerate(self._members):
            if member.is_in(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(name)

    def remove(self, node, name: str) -> None:
        for index, member in enumerate(self._members):
            member.remove(node, f"{name}.{index}")


class Validated:
    """A storage whose values must pass validators too."""

    def __init__(self, storage, validators: tuple[Validator, ...]) -> None:
        self._storage, self._validators = storage, validators
        self.default, self.is_in, self.remove = storage.default, storage.is_in, storage.remove
        self.read = storage.read

    def check(self, value) -> None:
        self._storage.check(value)
        for validator in self._validators:
            validator.validate(value)

    def write(self, node, name: str, value) -> None:
        self.check(value)
        self._storage.write(node, name, value)


def saver(storage, node, name: str):
    """Writes a changed value back."""

    def save(value) -> None:
        with slicer.util.NodeModify(node):
            storage.write(node, name, value)

    return save


class ObservedList(MutableSequence):
    """A list in a parameter node: what is changed in it is written."""

    def __init__(self, values: list, save) -> None:
        self._values, self._save = values, save

    def __getitem__(self, index):
        return self._values[index]

    def __setitem__(self, index, value) -> None:
        self._values[index] = value
        self._save(self._values)

    def __delitem__(self, index) -> None:
        del self._values[index]
        self._save(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def insert(self, index: int, value) -> None:
        self._values.insert(index, value)
        self._save(self._values)

    def __eq__(self, other) -> bool:
        return list(self) == list(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"ObservedList({self._values})"


class ObservedDict(MutableMapping):
    """A dict in a parameter node: what is changed in it is written. get() and pop() take no default."""

    def __init__(self, values: dict, save) -> None:
        self._values, self._save = values, save

    def __getitem__(self, key):
        return self._values[key]

    def __setitem__(self, key, value) -> None:
        self._values[key] = value
        self._save(self._values)

    def __delitem__(self, key) -> None:
        del self._values[key]
        self._save(self._values)

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key):
        return self._values.get(key)

    def pop(self, key):
        value = self._values.pop(key)
        self._save(self._values)
        return value

    def __repr__(self) -> str:
        return f"ObservedDict({self._values})"


def storage_of(hint):
    """The storage for a type hint. Raises TypeError for a type that the wrapper does not know."""
    kind, annotations = split(hint)
    validators = tuple(each for each in annotations if isinstance(each, Validator))
    storage = _storage_of_type(kind)
    return Validated(storage, validators) if validators else storage


def _storage_of_type(kind):
    from .parameter_pack import PackStorage

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    parts = [storage_of(each) for each in arguments] if origin is not None or is_union(kind) else []
    if is_union(kind):
        return UnionStorage(parts)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](parts)
    if is_pack(kind):
        return PackStorage(kind)
    if kind in _EXACT:
        return Storage(kind)
    for base, make in _BASES:
        if isinstance(kind, type) and issubclass(kind, base):
            return make(kind)
    raise TypeError(f"Unable to create serializer for type {kind}")


_CONTAINERS = {
    list: lambda parts: ListStorage(parts[0]),
    tuple: TupleStorage,
    dict: lambda parts: DictStorage(*parts),
}
_EXACT = (int, float, str, pathlib.Path, pathlib.PurePath, type(pathlib.Path()))
# bool before the rest, whose subclass it may be.
_BASES = (
    (type(None), lambda kind: NoneStorage()),
    (bool, lambda kind: Storage(bool, lambda value: "True" if value else "False", lambda text: text == "True")),
    (enum.Enum, lambda kind: Storage(kind, lambda value: value.name, lambda text: kind[text], next(iter(kind)))),
    (slicer.vtkMRMLNode, NodeStorage),
)
