"""Facts of the collections: complete, and written beside what is fetched or imported."""

from dataclasses import fields

import pytest

from CACTrainingLib.collections.collection import collections
from CACTrainingLib.collections.scans import READERS


def test_every_collection_is_described():
    entries = collections()
    assert list(entries) == ["coca-nongated", "coca", "ct-rate", "lidc", "nlst", "orcascore"]
    for name, collection in entries.items():
        assert collection.name == name
        assert collection.reader in READERS
        texts = [
            getattr(collection, field.name)
            for field in fields(collection)
            if field.name not in ("labels", "idc", "patient")
        ]
        assert all(texts), name
        assert "http" in collection.source


@pytest.mark.parametrize("name", ["coca", "ct-rate"])
def test_terms_are_kept(tmp_path, name):
    collection = collections()[name]
    collection.write_terms(tmp_path / "new")
    text = (tmp_path / "new" / f"TERMS-{name}.txt").read_text("utf-8")
    for part in (collection.licence, collection.terms, collection.citation, *collection.traps, *collection.labels):
        assert part in text
