"""The scans of the study of radiomics: what is true of them, and their features."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from CACScoringLib.core.progress import Progress

from ...data.scan_table import TableScan
from ...experiments.errors import StudyError
from .configurations import NETWORKS


@dataclass(frozen=True)
class Scans:
    """The scans of one table, n of them, with everything known of each.

    agatston: true score, NaN where it is not known. visible, other: whether coronary calcium can be seen in any slice,
    and whether there is calcium elsewhere, 1 or 0; NaN where nobody knows. factors: age in years and 1 for men, float
    [n, 2]; None where the table has not all of them. features: by set, float [n, f]. titles: by set, the features'
    names. pseudo: bool [n], what the 130 HU rule says by itself. failed: why other scans are not among these, by name.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    agatston: np.ndarray
    visible: np.ndarray
    other: np.ndarray
    factors: np.ndarray | None
    features: Mapping[str, np.ndarray]
    titles: Mapping[str, tuple[str, ...]]
    pseudo: np.ndarray
    failed: Mapping[str, str]

    @property
    def truth(self) -> np.ndarray:
        """Whether there is any coronary calcium: bool [n]."""
        return self.agatston > 0

    def chosen(self, rows: Sequence[int] | np.ndarray) -> Scans:
        """Only some of them."""
        rows = np.asarray(rows, int)
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            patients=tuple(self.patients[row] for row in rows),
            agatston=self.agatston[rows],
            visible=self.visible[rows],
            other=self.other[rows],
            factors=None if self.factors is None else self.factors[rows],
            features={name: values[rows] for name, values in self.features.items()},
            pseudo=self.pseudo[rows],
        )

    def stamp(self, features: str) -> str:
        """Stands for all that a model of these features takes from the scans."""
        said = repr((self.names, self.patients, self.agatston.tolist(), self.pseudo.tolist(), self.titles[features]))
        return hashlib.sha256(said.encode() + self.features[features].tobytes()).hexdigest()[:16]


def read_scans(
    table: Sequence[TableScan],
    folder: Path,
    files: Mapping[str, Path],
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Scans:
    """Features are made once and kept below the folder. files: of others' encoders, by their key in NETWORKS.
    device: of encoders, "cpu" or "cuda".

    Raises CTError where none of the scans can be read, or an encoder's file is not what it should be.
    """
    from ..encoders import features_of
    from .fitting import pseudo_labels

    kinds = ("heart", "candidates", *(name for name in NETWORKS if name == "own" or name in files))
    tables, failed = features_of(table, folder, kinds, dict(files), workers, device, progress)
    names = tables["heart"].scans
    if not names:
        name, reason = next(iter(failed.items()))
        raise StudyError(f"None of {len(table)} scans could be read; {name}: {reason}")
    by_name = {scan.name: scan for scan in table}
    known = [by_name[name] for name in names]
    seen = [true_findings(scan.ct) for scan in known]
    factors = np.array([scan.factors[:2] for scan in known])
    values = {kind: found.values for kind, found in tables.items()}
    titles = {kind: found.features for kind, found in tables.items()}
    found = Scans(
        names=tuple(names),
        patients=tuple(scan.patient for scan in known),
        agatston=np.array([math.nan if scan.total is None else scan.total for scan in known]),
        visible=np.array([one[0] for one in seen]),
        other=np.array([one[1] for one in seen]),
        factors=factors if np.isfinite(factors).all() else None,
        features=values,
        titles=titles,
        pseudo=np.asarray(pseudo_labels(tables["candidates"]), bool),
        failed=failed,
    )
    return with_derived(found)


def with_derived(scans: Scans) -> Scans:
    """With the sets that are made of noncoronary_controls: heart and candidates side by side, and the baselines."""
    from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE

    values, titles = dict(scans.features), dict(scans.titles)
    values["both"] = np.concatenate([values["heart"], values["candidates"]], 1)
    titles["both"] = (*titles["heart"], *titles["candidates"])
    own = titles["candidates"].index(PSEUDO_FEATURE)
    values["agatston"], titles["agatston"] = values["candidates"][:, own : own + 1], (PSEUDO_FEATURE,)
    if scans.factors is not None:
        values["age-sex"], titles["age-sex"] = scans.factors, ("age", "sex")
    return replace(scans, features=values, titles=titles)


def true_findings(ct: Path) -> tuple[float, float]:
    """Of a digital patient's CT, whether coronary calcium is visible and whether there is other calcium, 1 or 0.

    Both NaN where no `truth.json` lies beside the CT, or it cannot be read.
    """
    try:
        content = json.loads((ct.parent / "truth.json").read_text(encoding="utf-8"))
        visible = any(label["visible"] for label in content["slices"])
        other = any(not one["metal"] for one in content["distractors"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan, math.nan
    return float(visible), float(other)
