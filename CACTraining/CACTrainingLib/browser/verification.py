"""Check that journals, register, plan, results, exports and tables of readings are as they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import LAST_FILE, REVIEWS
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.readings import journals as readings
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.record.score_record import read_result
from CACScoringLib.review.chain import IS_AVAILABLE, Line, damaged, is_signed, public_key, read_lines
from CACScoringLib.review.journal import CHANGES, Journal

from .agreement import TABLES
from .open_reviews import OpenReview

MAX_CLOCK_SECONDS = 120.0
"""Time by which a register's clock may go back, as between computers that share a folder."""

Findings = Iterator[tuple[str, bool]]
"""Descriptions for people, each with True unless it is a fault."""


def verify_readings(
    folder: Path, keys: Sequence[str] = (), noted: Sequence[str] = (), tables: Path | None = None
) -> Findings:
    """Check all that readings have left in a folder of results.

    A chain shows changed lines, the register journals that are gone or cut, signatures lines that no site has written,
    and hashes changed files. Who has the site's key can write all of it anew, but for a hash that was noted elsewhere.

    Args:
        folder: Folder of the results.
        keys: Public keys of the site's writers; empty for the user's own.
        noted: Hashes of lines that must be in the register or a journal.
        tables: Folder of tables to check, too.
    """
    folder = folder.resolve()
    root = readings.root_of(folder)
    results = [folder] if (folder / LAST_FILE).exists() else sorted(root.iterdir())
    files = {file for result in results for file in (result / REVIEWS).glob("*.jsonl")}
    subfolders = {path for result in results if (result / LAST_FILE).is_file() for path in _subfolders(result)}
    if not (files or subfolders or (root / readings.REGISTER).exists()):
        return
    keys = (keys or (public_key(),)) if IS_AVAILABLE else ()
    checked = f"checked with the public key {' or '.join(keys)}"
    yield f"Signatures are {checked if keys else 'not checked: the package cryptography is missing'}.", True
    marks: dict[Path, list[Line]] = defaultdict(list)
    register: list[Line] = []
    try:
        register = read_lines(root / readings.REGISTER)[0]
        yield _register_finding(register, root, keys)
        for line in register:
            if line["kind"] == "journal" and (folder == root or (root / line["file"]).parent.parent == folder):
                marks[root / line["file"]].append(line)
    except (CTError, KeyError, TypeError, ValueError) as error:
        yield str(error if isinstance(error, CTError) else damaged(root / readings.REGISTER, error)), False
    journals: dict[Path, Journal] = {}
    for file in sorted({*files, *marks}):
        try:
            journals[file] = readings.open_journal(file)
        except CTError as error:
            yield str(error), False
    yield from _journal_findings(journals, marks, register, keys, folder)
    yield from _export_findings(root, subfolders, journals)
    if tables is not None:
        yield _tables_finding(tables, register)
    hashes = {line["sha256"] for lines in (register, *(j.lines for j in journals.values())) for line in lines}
    for sha256 in noted:
        is_there = sha256 in hashes
        words = "in the record" if is_there else "not in the record: it was cut or written anew"
        yield f"Line {sha256} is {words}.", is_there


def _subfolders(result: Path) -> list[Path]:
    """Return the folders that a result should have from exports alone."""
    folders = (path for path in result.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in folders if path.name != REVIEWS]


def _register_finding(register: Sequence[Line], root: Path, keys: Sequence[str]) -> tuple[str, bool]:
    plans = {line["plan"]: line["time"] for line in register if line["kind"] == "server"}
    changed = [plan for plan in plans if plan not in ("", readings.plan_sha256(root))]
    times = [datetime.fromisoformat(line["time"]) for line in register]
    steps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    back = [str(number) for number, seconds in enumerate(steps, 2) if seconds < -MAX_CLOCK_SECONDS]
    faults = _signature_faults(register, keys)
    faults += [f"the clock had gone back at line {abbreviated_list(back)}"] if back else []
    faults += [f"{readings.PLAN} was changed or removed since {plans[plan]}" for plan in changed]
    last = register[-1]["sha256"] if register else ""
    return _finding(f"{readings.REGISTER}: {len(register)} lines. Hash of the last: {last}", readings.REGISTER, faults)


def _finding(right: str, wrong: str, faults: Sequence[str]) -> tuple[str, bool]:
    return (f"{wrong}: {'; '.join(faults)}.", False) if faults else (right, True)


def _signature_faults(lines: Sequence[Line], keys: Sequence[str]) -> list[str]:
    """Return the lines that none of the keys has signed, by the key that has."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        key = line.get("key", "")
        key = key if keys and is_signed(line["sha256"], line.get("signature"), key) else ""
        if keys and key not in keys:
            numbers[key].append(str(number))
    signer = {key: f"is signed by {key}, which --key does not name" if key else "is not signed" for key in numbers}
    return [f"line {abbreviated_list(lines)} {signer[key]}" for key, lines in numbers.items()]


def _journal_findings(
    journals: Mapping[Path, Journal],
    marks: Mapping[Path, list[Line]],
    register: Sequence[Line],
    keys: Sequence[str],
    folder: Path,
) -> Findings:
    """Check journals. marks: Lines of the register about each. folder: The verified folder."""
    root, present_hashes = readings.root_of(folder), cache(readings.result_hashes)
    times = {file: journal.entries[0].time for file, journal in journals.items() if journal.entries}
    last = max(times, key=times.__getitem__, default=None) if folder == root else None
    registered = {line["sha256"]: "" for line in register} | ({"": register[0]["sha256"]} if register else {})
    for file, journal in journals.items():
        words = f"{file.relative_to(root)}: {len(journal.entries)} entries"
        back = [str(later.number) for earlier, later in pairwise(journal.entries) if later.time < earlier.time]
        words += f", the clock had gone back at {', '.join(back)}" if back else ""
        faults = _journal_faults(journal, marks[file], registered)
        if journal.lines:
            faults += _signature_faults(journal.lines, keys)
            faults += _result_faults(journal, present_hashes(file.parent.parent), file == last)
        yield _finding(f"{words}, unchanged. Hash of the last: {['', *journal.hashes][-1]}", words, faults)


def _journal_faults(journal: Journal, marks: Sequence[Line], registered: Mapping[str, str]) -> list[str]:
    """Return what the register shows. registered: Its hashes; for "", before its first line, the hash of that line."""
    if not journal.lines:
        return [f"it is missing, and was begun at {mark['time']}" for mark in marks[:1]]
    hashes = dict(enumerate(journal.hashes))
    faults = [
        f"entry {mark['entries']}, registered at {mark['time']}, was cut or replaced"
        for mark in marks
        if mark["last"] != hashes.get(mark["entries"])
    ]
    if not marks:
        return [f"it is not in {readings.REGISTER}: no review of CAC has written it there"]
    if registered.get(journal.lines[0].get("register", "")) not in ("", marks[0]["sha256"]):
        faults.append(f"{readings.REGISTER} was replaced after it was begun")
    return faults


def _result_faults(journal: Journal, present: Mapping[str, str], is_last: bool) -> list[str]:
    """Return the files of the result that have changed since a journal began; of the last also the cohort's tables.

    What is derived from a result scored again, with the same content, states another time.
    """
    folder = journal.file.parent.parent
    prefix = "" if readings.root_of(folder) == folder else f"{folder.name}/"
    recorded = journal.lines[0].get("files", {})
    changed = [name for name in {**recorded, **present} if recorded.get(name) != present.get(name)]
    if f"{prefix}{LAST_FILE}" in changed:
        changed = [name for name in changed if not name.startswith(prefix) or name.endswith(".nii.gz")]
    changed = [name for name in changed if is_last or name.startswith(prefix)]
    return [f"{abbreviated_list(changed)} changed since it was begun"] if changed else []


def _export_findings(root: Path, subfolders: Iterable[Path], journals: Mapping[Path, Journal]) -> Findings:
    """Compare the folders of a result with the exports that its journals name."""
    written = {
        file.parent.parent / entry.what: entry.files
        for file, journal in journals.items()
        for entry in journal.entries
        if entry.kind == "export"
    }
    for folder in sorted({*written, *subfolders}):
        name = str(folder.relative_to(root))
        faults = _file_faults(folder, written[folder]) if folder in written else ["no journal names it"]
        yield _finding(f"{name}: as exported.", name, faults)


def _file_faults(folder: Path, recorded: Mapping[str, str]) -> list[str]:
    present = readings.hashes_below(folder)
    changed = [name for name in {**recorded, **present} if recorded.get(name) != present.get(name)]
    return [f"not as written: {abbreviated_list(changed)}"] if changed else []


def _tables_finding(folder: Path, register: Sequence[Line]) -> tuple[str, bool]:
    written = [line for line in register if line["kind"] == TABLES]
    faults = [_file_faults(folder, line["files"]) for line in written] or [[f"{readings.REGISTER} names no tables"]]
    return _finding(f"{folder}: as written.", str(folder), min(faults, key=len))


def recomputed(cases: Iterable[ReviewCase]) -> Findings:
    """Compute exported scores again, from the voxels of the CT and the changes in the journal."""
    for case in cases:
        for export in sorted(case.folder.glob(f"*/{LAST_FILE}")):
            name = export.relative_to(case.folder.parent)
            try:
                record = read_result(export)
                if record.review is None or (mark := record.review.journal) is None:
                    continue
                review = OpenReview(case, readings.reading_in(case, case.folder / REVIEWS / mark.file), case.scan())
                results, entries = review.review.results(), review.journal.entries
                is_same = all(results[key].total.agatston == m.total.agatston for key, m in record.methods.items())
            except CTError as error:
                yield f"{name} cannot be computed again: {error}", False
                continue
            is_old = any(entry.kind in CHANGES for entry in entries[mark.entries :])
            words = "older than its journal" if is_old else "the same" if is_same else "another score"
            yield f"{name}, computed again from voxels and journal: {words}.", is_same or is_old
