"""Check that journals, register, plan, exports and tables of readings are as they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import LAST_FILE, REVIEWS, file_sha256
from CACScoringLib.core.labels import Labelled
from CACScoringLib.core.tables import read_table
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import (
    PLAN,
    REGISTER,
    labels_after,
    open_journal,
    plan_sha256,
    reading_in,
    root_of,
)
from CACScoringLib.record.columns import READ_LESION
from CACScoringLib.record.reading import read_result
from CACScoringLib.record.review_record import JOURNAL
from CACScoringLib.review.chain import Line, read_lines
from CACScoringLib.review.journal import CHANGES, Journal
from CACScoringLib.review.signatures import IS_AVAILABLE, is_signed, public_key

from .open_reviews import OpenReview

Findings = Iterator[tuple[str, bool]]
"""Descriptions for people, each with True unless it is a fault."""


def verify_readings(folder: Path, keys: Sequence[str] = ()) -> Findings:
    """Check all that readings have left in a folder of results.

    A chain shows changed lines, the register journals that are gone or cut, signatures lines that no site has written.
    Who has the site's key can write all of it anew: compare the last hash with one that was noted elsewhere, as in an
    exported review or a table.

    keys: Public keys of the site; empty for the user's own.
    """
    folder = folder.resolve()
    root = root_of(folder)
    results = [folder] if (folder / LAST_FILE).exists() else sorted(root.iterdir())
    files = {file for result in results for file in (result / REVIEWS).glob("*.jsonl")}
    exports = [export for result in results for export in sorted(result.glob(f"*/{LAST_FILE}"))]
    if not (files or exports or (root / REGISTER).exists()):
        return
    keys = (keys or (public_key(),)) if IS_AVAILABLE else ()
    checked = f"checked with the public key {' or '.join(keys)}"
    yield f"Signatures are {checked if keys else 'not checked: the package cryptography is missing'}.", True
    marks: dict[Path, list[Line]] = defaultdict(list)
    try:
        register = read_lines(root / REGISTER)[0]
        yield _register_finding(register, root, keys)
    except CTError as error:
        yield str(error), False
        register = []
    for line in register:
        if line["kind"] == "journal" and (folder == root or (root / line["file"]).parent.parent == folder):
            marks[root / line["file"]].append(line)
    journals: dict[Path, Journal] = {}
    for file in sorted({*files, *marks}):
        try:
            journal = journals[file] = open_journal(file)
        except CTError as error:
            yield str(error), False
            continue
        words = f"{file.relative_to(root)}: {len(journal.entries)} entries"
        back = [str(later.number) for earlier, later in pairwise(journal.entries) if later.time < earlier.time]
        words += f", the clock had gone back at {', '.join(back)}" if back else ""
        right = f"{words}, unchanged. Hash of the last: {['', *journal.hashes][-1]}"
        yield _finding(right, words, _journal_faults(journal, marks[file], keys))
    for export in exports:
        name = str(export.parent.relative_to(root))
        try:
            yield _finding(f"{name}: as exported.", name, _export_faults(export, journals))
        except CTError as error:
            yield str(error), False


def _register_finding(register: Sequence[Line], root: Path, keys: Sequence[str]) -> tuple[str, bool]:
    last = register[-1] if register else {"sha256": ""}
    plans = {line["plan"]: line["time"] for line in register if line["kind"] == "server"}
    changed = [plan for plan in plans if plan not in ("", plan_sha256(root))]
    faults = _signature_faults(last["sha256"], last.get("signature"), keys)
    faults += [f"{PLAN} was changed or removed since {plans[plan]}" for plan in changed]
    return _finding(f"{REGISTER}: {len(register)} lines. Hash of the last: {last['sha256']}", REGISTER, faults)


def _finding(right: str, wrong: str, faults: Sequence[str]) -> tuple[str, bool]:
    return (f"{wrong}: {'; '.join(faults)}.", False) if faults else (right, True)


def _signature_faults(sha256: str, signature: object, keys: Iterable[str]) -> list[str]:
    is_right = not keys or any(is_signed(sha256, signature, key) for key in keys)
    return [] if is_right else [f"the last line is not signed by {' or '.join(keys)}"]


def _journal_faults(journal: Journal, marks: Sequence[Line], keys: Sequence[str]) -> list[str]:
    if not journal.hashes:
        return [f"it is missing, and was begun at {mark['time']}" for mark in marks[:1]]
    faults = [
        f"entry {mark['entries']}, registered at {mark['time']}, was cut or replaced"
        for mark in marks
        if mark["last"] != _hash_at(journal.hashes, mark["entries"])
    ]
    faults += [] if marks else [f"it is not in {REGISTER}: no review of CAC has written it there"]
    return faults + _signature_faults(journal.hashes[-1], journal.signature, keys)


def _hash_at(hashes: Sequence[str], entry: int) -> str:
    """Return the hash of an entry, or an empty text without this entry."""
    return hashes[entry] if 0 < entry < len(hashes) else ""


def _export_faults(export: Path, journals: dict[Path, Journal]) -> list[str]:
    folder, record = export.parent, read_result(export)
    if (review := record.review) is None:
        return []
    mark = review.journal
    journal = None if mark is None else journals.get(folder.parent / REVIEWS / mark.file)
    if mark is None or journal is None:
        return ["it is a review without a journal"]
    if mark.sha256 != _hash_at(journal.hashes, mark.entries):
        return [f"the entry that it was exported with, {mark.sha256}, is not in {mark.file}"]
    entry, method = journal.entries[mark.entries - 1], record.methods["threshold"]
    is_same = (method.total.agatston, method.reviewed) == (entry.agatston, entry.reviewed)
    faults = [] if is_same and review.confirmations == entry.confirmations else ["its score is not that of its entry"]
    written = [later.files for later in journal.entries if later.kind == "export" and later.what == folder.name]
    if not written:
        return [*faults, "no entry of its journal names it"]
    changed = [part for part, sha256 in written[-1].items() if not _is_file(folder / part, sha256)]
    return [*faults, *([f"not as exported: {', '.join(changed)}"] if changed else [])]


def _is_file(file: Path, sha256: str) -> bool:
    return file.is_file() and file_sha256(file) == sha256


def verify_tables(folder: Path, root: Path) -> Findings:
    """Check that journals still have the entries, and these the scores and lesions, that tables of readings name."""
    from .agreement import READINGS, lesions_of

    stated: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    readings: dict[str, list[tuple[Path, tuple[str, str], Labelled]]] = defaultdict(list)
    files = {(file.parent.parent.name, file.name): file for file in root.rglob(f"{REVIEWS}/*.jsonl")}
    needed = ("scan", "reader", "repetition", "agatston", *READ_LESION, *JOURNAL)
    for line in read_table(folder / READINGS, needed).lines:
        agatston, number = line.number_in("agatston"), line.number_in("entries", integer=True)
        scan, reading = line.text("scan"), (line.text("reader"), line.text("repetition"))
        if agatston is None and not line.text("journal"):
            stated[scan].append((*reading, *map(line.text, READ_LESION)))
            continue
        file, place = files.get((scan, line.text("journal"))), f"{READINGS}, line {line.number}"
        if file is None:
            yield f"{place}: its journal is missing.", False
            continue
        try:
            journal, entry = open_journal(file), int(number or 0)
        except CTError as error:
            yield str(error), False
            continue
        is_there = entry > 0 and line.text("journal_sha256") == _hash_at(journal.hashes, entry)
        is_same = is_there and journal.entries[entry - 1].agatston == agatston
        name = file.relative_to(root)
        fault = f"another score than its entry in {name}" if is_there else f"its entry is not in {name}"
        yield f"{place}: {f'its entry is in {name}' if is_same else fault}.", is_same
        if is_there:
            readings[scan].append((file.parent.parent, reading, labels_after(journal, entry)["threshold"]))
    for scan in {**stated, **readings}:
        places, names, labels = zip(*readings[scan], strict=True) if readings[scan] else ((), (), ())
        lesions = lesions_of(places[0], labels) if places else ()
        rows = [(*name, *map(str, cells)) for lesion in lesions for name, cells in zip(names, lesion, strict=True)]
        if rows != stated[scan]:
            yield f"{READINGS}: the lesions of {scan} are not those of its readings.", False


def recomputed(cases: Iterable[ReviewCase]) -> Findings:
    """Compute exported scores again, from the voxels of the CT and the changes in the journal."""
    for case in cases:
        for export in sorted(case.folder.glob(f"*/{LAST_FILE}")):
            name = export.relative_to(case.folder.parent)
            try:
                record = read_result(export)
                if record.review is None or (mark := record.review.journal) is None:
                    continue
                review = OpenReview(case, reading_in(case, case.folder / REVIEWS / mark.file), case.scan())
                results, entries = review.review.results(), review.journal.entries
                is_same = all(results[key].total.agatston == m.total.agatston for key, m in record.methods.items())
            except CTError as error:
                yield f"{name} cannot be computed again: {error}", False
                continue
            is_old = any(entry.kind in CHANGES for entry in entries[mark.entries :])
            words = "older than its journal" if is_old else "the same" if is_same else "another score"
            yield f"{name}, computed again from voxels and journal: {words}.", is_same or is_old
