"""Split of patients into training, validation and test."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .files import ProjectError

if TYPE_CHECKING:
    from .project import Project

USES = ("training", "validation", "test")


def patient_kinds(project: Project) -> dict[str, int]:
    """Knowledge of the calcium of a project's patients: 2 seen in a slice, 1 looked for and not seen, 0 unknown.

    By any annotator, or by a digital patient's truth. Raises ProjectError when annotations cannot be opened.
    """
    from .annotations import SliceLabel, annotators, slice_annotations, truth_labels

    kinds: dict[str, int] = {}
    for scan in project.scans:
        labels = set(truth_labels(scan).values())
        for name in annotators(project, scan.id):
            labels |= set(slice_annotations(project, scan.id, name).labels.values())
        kind = 2 if SliceLabel.VISIBLE in labels else int(SliceLabel.NOT_VISIBLE in labels)
        kinds[scan.patient] = max(kinds.get(scan.patient, 0), kind)
    return kinds


def split_patients(
    known: Mapping[str, str], shares: tuple[float, float, float], seed: int, kinds: Mapping[str, int]
) -> dict[str, str]:
    """Uses for the patients without one, by patient.

    known: the use of each patient, "" for none; those that have one keep it and count. shares: of training, validation
    and test; they need not add up to 1. kinds: of patients, the highest the one that matters most, such as those with
    calcium; each kind is shared out by itself as far as its number allows, and where it does not, the highest comes
    first and goes to uses that have none of it. Where there are enough patients, every use with a share gets one.
    Training comes first, then validation. The same patients, uses, shares and seed give the same, whatever the order.
    Raises ProjectError for bad shares.
    """
    if len(shares) != 3 or not all(math.isfinite(share) and share >= 0 for share in shares) or not sum(shares) > 0:
        raise ProjectError(f"The shares {shares} cannot be used. Give three numbers from 0, such as 0.6, 0.2 and 0.2.")
    share = {use: own / sum(shares) for use, own in zip(USES, shares, strict=True)}
    waiting = [patient for patient in sorted(known, key=lambda p: _draw(seed, p)) if not known[patient]]
    given: dict[str, str] = {}
    left: list[str] = []
    for kind in sorted({kinds.get(patient, 0) for patient in waiting}, reverse=True):
        own = [patient for patient in waiting if kinds.get(patient, 0) == kind]
        count = sum(kinds.get(patient, 0) == kind for patient in known)
        held = Counter(use for patient, use in known.items() if kinds.get(patient, 0) == kind)
        # What is due to each use in whole patients; who is left over evens out the whole.
        for use in USES:
            due = max(0, math.floor(share[use] * count + 1e-9) - held[use])
            given |= dict.fromkeys(own[:due], use)
            own = own[due:]
        left += own
    for patient in left:
        uses = {**known, **given}
        held = Counter(uses.values())
        kind = kinds.get(patient, 0)
        lacking = {use for use in USES if kind and not any(kinds.get(p, 0) == kind for p in uses if uses[p] == use)}
        given[patient] = max(
            USES, key=lambda use: (share[use] > 0, use in lacking, share[use] * len(known) - held[use])
        )
    return _at_least_one_each(known, given, [use for use in USES if share[use] > 0])


def _at_least_one_each(known: Mapping[str, str], given: dict[str, str], wanted: list[str]) -> dict[str, str]:
    for use in wanted:
        held = Counter([*known.values(), *given.values()])
        if held[use]:
            continue
        # The last use first, so that training is the last to go without.
        givers = [p for p in given if held[given[p]] > 1 or wanted.index(given[p]) > wanted.index(use)]
        if givers:
            most = max(givers, key=lambda p: (held[given[p]], wanted.index(given[p])))
            given[most] = use
    return given


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogateescape")).hexdigest()
