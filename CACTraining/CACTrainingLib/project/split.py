"""Split patients into training, validation and test."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping

from CACScoringLib.core.errors import ProjectError

USES = ("training", "validation", "test")


def split_patients(
    uses: Mapping[str, str], shares: tuple[float, float, float], seed: int, kinds: Mapping[str, int]
) -> dict[str, str]:
    """Assign uses to the patients without one; return them by patient.

    Each kind of patient is split separately; remaining patients, highest kind first, go to uses without this kind, and
    then to the use farthest below its share. With enough patients, every use with a share gets one. Training has
    priority, then validation. The result does not depend on the order of patients.

    Args:
        uses: Use of each patient, "" for none; existing uses stay, and count towards the shares.
        shares: Shares of training, validation and test, which need not add up to 1.
        seed: Random seed.
        kinds: Kind of each patient, 0 by default; the highest matters most, such as patients with calcium.

    Raises:
        ProjectError: The shares cannot be used.
    """
    if len(shares) != 3 or not all(math.isfinite(share) and share >= 0 for share in shares) or not sum(shares) > 0:
        raise ProjectError(f"The shares {shares} cannot be used. Give three numbers from 0, such as 0.6, 0.2 and 0.2.")
    share = {use: part / sum(shares) for use, part in zip(USES, shares, strict=True)}
    without_use = [patient for patient in sorted(uses, key=lambda p: _rank(seed, p)) if not uses[patient]]
    new_uses: dict[str, str] = {}
    remaining: list[str] = []
    for kind in sorted({kinds.get(patient, 0) for patient in without_use}, reverse=True):
        patients = [patient for patient in without_use if kinds.get(patient, 0) == kind]
        count = sum(kinds.get(patient, 0) == kind for patient in uses)
        counts = Counter(use for patient, use in uses.items() if kinds.get(patient, 0) == kind)
        # Each use gets its share rounded down; the remaining patients even out the whole split.
        for use in USES:
            due = max(0, math.floor(share[use] * count + 1e-9) - counts[use])
            new_uses |= dict.fromkeys(patients[:due], use)
            patients = patients[due:]
        remaining += patients
    for patient in remaining:
        present = {**uses, **new_uses}
        counts = Counter(present.values())
        kind = kinds.get(patient, 0)
        without_kind = {*USES} - {use for p, use in present.items() if kinds.get(p, 0) == kind} if kind else set()
        new_uses[patient] = max(
            USES, key=lambda use: (share[use] > 0, use in without_kind, share[use] * len(uses) - counts[use])
        )
    return _fill_empty_uses(uses, new_uses, [use for use in USES if share[use] > 0])


def _fill_empty_uses(uses: Mapping[str, str], new_uses: dict[str, str], required: list[str]) -> dict[str, str]:
    for use in required:
        counts = Counter([*uses.values(), *new_uses.values()])
        if counts[use]:
            continue
        # The last use gives first, so that training is the last to lose its only patient.
        donors = [p for p in new_uses if counts[new_uses[p]] > 1 or required.index(new_uses[p]) > required.index(use)]
        if donors:
            donor = max(donors, key=lambda p: (counts[new_uses[p]], required.index(new_uses[p])))
            new_uses[donor] = use
    return new_uses


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogateescape")).hexdigest()
