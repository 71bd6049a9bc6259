"""Files of models in a folder: exchanged so that a whole model is there at every moment, and kept when exchanged.

A model is a card, `NAME.json`, and its weights, `NAME.safetensors`. Two files cannot be exchanged at once. Therefore
new weights first lie beside the old ones as `NAME@HASH.safetensors`, where the new card finds them; the exchange is the
moment in which the new card takes the old one's place. Then the weights take their own name. Whoever is ended between
any two of these steps leaves one of the two models whole.

Nothing here reads a card or loads weights (`models` does). Every function raises OSError as the system gives it.
"""

from __future__ import annotations

import contextlib
import glob
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..core.files import LEFT_SECONDS, partial_folder, remove_partial, whole_folder, write_bytes_atomically

ENDING = ".safetensors"
_HASH_LENGTH = 16
_MARK = "@"
"""No name of a model holds it."""


def weights_of(card: Path, sha256: str) -> Path:
    """Where the weights of a card lie that have this SHA-256, or would lie."""
    waiting = _waiting(card, sha256)
    return waiting if waiting.is_file() else _own(card)


def files_of(card: Path) -> list[Path]:
    """What lies in the card's folder of its model: the card first, then all weights under its name."""
    return [path for path in (card, _own(card), *_all_waiting(card)) if path.is_file()]


def put(card: Path, text: str, weights: bytes, sha256: str) -> None:
    """Write a model, in place of one of its name; its card tells when: before it the old one is there, then the new.

    Args:
        card: Path of the card.
        text: The card's content.
        weights: Content of the file of weights.
        sha256: Of the weights.
    """
    card.parent.mkdir(parents=True, exist_ok=True)
    tidy(card)
    waiting = _waiting(card, sha256)
    write_bytes_atomically(waiting, weights)
    write_bytes_atomically(card, text.encode())
    # From here on the new model is in place: where tidying fails, as on Windows while a file is open, it is whole.
    with contextlib.suppress(OSError):
        waiting.replace(_own(card))
        for path in _all_waiting(card):
            path.unlink()


def put_card(card: Path, text: str) -> None:
    """Write a card anew whose weights stay."""
    tidy(card)
    write_bytes_atomically(card, text.encode())


def tidy(card: Path) -> None:
    """Remove what killed programs have left half written beside a card, of it and its weights."""
    remove_partial(card.parent, LEFT_SECONDS, f"{glob.escape(card.stem)}*")


def remove(card: Path) -> None:
    """Remove a model; the card first, for without it there is none."""
    for path in files_of(card):
        path.unlink()


def keep(files: Iterable[Path], place: Path) -> Path:
    """Copy a model's files into the next numbered folder of a place, whole or not at all; returns that folder."""
    number = max((int(folder.name) for folder in kept(place)), default=0) + 1
    place.mkdir(parents=True, exist_ok=True)
    remove_partial(place, LEFT_SECONDS)
    folder = place / str(number)
    with whole_folder(folder) as half:
        for path in files:
            shutil.copyfile(path, half / path.name)
    return folder


def kept(place: Path) -> list[Path]:
    """The numbered folders of a place, the newest first."""
    found = [path for path in place.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def discard(folder: Path) -> None:
    """Remove a folder that `keep` made; it first loses its number, so that half of one is never taken for a whole."""
    with partial_folder(folder) as leaving:
        folder.rename(leaving / folder.name)


def _own(card: Path) -> Path:
    return card.with_name(f"{card.stem}{ENDING}")


def _waiting(card: Path, sha256: str) -> Path:
    return card.with_name(f"{card.stem}{_MARK}{sha256[:_HASH_LENGTH]}{ENDING}")


def _all_waiting(card: Path) -> list[Path]:
    return sorted(card.parent.glob(f"{card.stem}{_MARK}*{ENDING}"))
