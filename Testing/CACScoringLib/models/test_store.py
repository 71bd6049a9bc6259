"""Files of models: what killed programs left is tidied up."""

import os

from CACScoringLib.models import store


def leave(folder, name, old=True):
    """Half a file, as a killed program leaves it."""
    left = folder / f".{name}.partial-x"
    left.mkdir(parents=True)
    (left / name).write_bytes(b"half")
    if old:
        os.utime(left, (0, 0))
    return left


def test_what_was_left_of_a_model_is_removed_by_the_next_writing(tmp_path):
    card = tmp_path / "own.json"
    left = [leave(tmp_path, name) for name in ("own.json", "own@0123456789abcdef.safetensors")]
    others = [leave(tmp_path, "other.json"), leave(tmp_path, "own.safetensors", old=False)]
    store.put(card, "{}", b"weights", "0" * 64)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    store.put_card(card, "{}")
    assert store.files_of(card) == [card, tmp_path / "own.safetensors"]
