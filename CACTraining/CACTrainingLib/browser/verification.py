"""Check that the journals of reviews are as they were written, and that exported reviews agree with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import LAST_FILE, file_sha256
from CACScoringLib.readings.journals import FOLDER
from CACScoringLib.record.reading import read_result
from CACScoringLib.review.journal import Journal


def verify_journals(root: Path) -> Iterator[tuple[str, bool]]:
    """Check all journals below a folder of results, and the exports that name them.

    Yields findings: a description for people, and True if nothing was changed.

    A chain shows changes of lines. Who may write the folder can write a whole new chain: an auditor therefore compares
    the last hash with one that was noted elsewhere, such as in an exported review.
    """
    for file in sorted([*root.glob(f"{FOLDER}/*.jsonl"), *root.glob(f"*/{FOLDER}/*.jsonl")]):
        yield from _verify(file, root)


def _verify(file: Path, root: Path) -> Iterator[tuple[str, bool]]:
    result, name = file.parent.parent, file.relative_to(root)
    try:
        journal = Journal(file, file_sha256(result / LAST_FILE))
    except OSError as error:
        yield f"{name}: its result has no readable {LAST_FILE} ({error.strerror}). Restore it.", False
        return
    except CTError as error:
        yield str(error), False
        return
    if journal.hashes:
        yield f"{name}: {len(journal.entries)} entries, unchanged. Hash of the last: {journal.hashes[-1]}", True
    for export in sorted(result.glob(f"*/{LAST_FILE}")):
        try:
            review = read_result(export).review
        except CTError as error:
            yield str(error), False
            continue
        mark = None if review is None else review.journal
        if mark is not None and mark.file == file.name and mark.sha256 not in journal.hashes:
            where = export.relative_to(root)
            yield f"{name}: the entry that {where} was exported with, {mark.sha256}, is not in it.", False
