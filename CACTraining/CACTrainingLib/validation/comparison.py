"""One scan compared: what the reference says and what each method scored, in total, by vessel and by lesion."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError, CTScan
from CACScoringLib.core.files import LAST_FILE, write_bytes_atomically
from CACScoringLib.core.labels import Artery, NonCoronary, site_of
from CACScoringLib.core.records import counted_labels
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.report.pictures import patch_picture
from CACScoringLib.scoring.lesions import Lesion, LesionSet, ScoringRules, connected_voxels, find_lesions
from CACScoringLib.scoring.scores import score_lesions

from .candidates import ScanCandidates, scan_candidates
from .reference import Reference, ReferenceScan

METHODS = {"automatic": ("threshold", "lesions.nii.gz"), "map": ("decomposition", "map_lesions.nii.gz")}
"""By the key of `report.parts.METHODS`: key in `scores.json`, and image of its lesions. What clinics use first."""

PICTURES = 6
"""At most so many of each kind are drawn of a scan, of the largest lesions."""
PICTURE_MM = 60.0
REFERENCE_COLOUR, METHOD_COLOUR = (105, 240, 174), (255, 145, 0)

SAME_PLACE_MM = 0.05
"""How far the middle of a lesion in `scores.json` may lie from that of its voxels: it was rounded."""


@dataclass(frozen=True)
class OutlinedLesion:
    """A lesion of the reference. vessel: as the reference distinguishes them; "other" for other arteries.

    found: whether each method counts any of it. named: the vessel that the method gives it to, where it was found; None
    for none of the reference's. pictures: file of each method that missed it, below the output.
    """

    vessel: str
    agatston: float
    volume_mm3: float
    found: dict[str, bool]
    named: dict[str, str | None]
    pictures: dict[str, str]


@dataclass(frozen=True)
class WrongLesion:
    """False positive of a method. at: the site the reference labels there."""

    method: str
    vessel: str | None
    agatston: float
    at: str | None
    picture: str | None


@dataclass(frozen=True)
class ComparedScan:
    """A scan, scored and compared.

    folder: its results. total, vessels: of the reference. measured, measured_vessels: by method. lesions, wrong: None
    where the reference has no outlines. counts: how many lesions each method has, where lesions are known.
    seconds: of scoring. warnings: codes. candidates: to calibrate by, where the clinical score
    is automatic.
    """

    name: str
    patient: str
    folder: str
    total: float
    vessels: dict[str, float]
    measured: dict[str, float]
    measured_vessels: dict[str, dict[str, float]]
    lesions: tuple[OutlinedLesion, ...] | None
    wrong: tuple[WrongLesion, ...] | None
    counts: dict[str, int]
    seconds: float
    models: tuple[dict, ...]
    warnings: tuple[str, ...]
    candidates: ScanCandidates | None = None


@dataclass(frozen=True)
class Job:
    """scan: with its reference. folder: its results. vessels: of the `Reference`. output: where pictures go."""

    scan: ReferenceScan
    folder: Path
    vessels: dict[str, tuple[str, ...]]
    output: Path


def comparer() -> Callable[[Job], dict]:
    """Comparer of a worker; all cores are at work already, so each keeps to one."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return lambda job: asdict(compare(job))


def from_json(content: dict) -> ComparedScan:
    """Restore from `dataclasses.asdict`."""
    fields = dict(content)
    for name, kind in (("lesions", OutlinedLesion), ("wrong", WrongLesion)):
        fields[name] = None if fields[name] is None else tuple(kind(**one) for one in fields[name])
    if fields.get("candidates") is not None:
        fields["candidates"] = ScanCandidates(**fields["candidates"])
    return ComparedScan(**{**fields, "models": tuple(fields["models"]), "warnings": tuple(fields["warnings"])})


def compare(job: Job) -> ComparedScan:
    """Compare a scan. Raises CTError and OSError for files that cannot be read or do not fit each other."""
    content = json.loads((job.folder / LAST_FILE).read_text(encoding="utf-8"))
    methods = {key: content["methods"][name] for key, (name, _) in METHODS.items() if name in content["methods"]}
    if any(method["reviewed"] for method in methods.values()):
        raise CTError("It was scored with a reader's lesions. Score it without them.")
    scan, vessels = job.scan, dict(scan_vessels(job))
    total, lesions, wrong, counts, coronary = scan.total, None, None, {}, None
    if scan.outlines is not None or total == 0:
        places = _Places(job, read_ct(scan.ct, scan.series), content, methods)
        lesions, wrong = places.outlined(), places.wrong()
        counts = {key: len(lesions_of_method) for key, lesions_of_method in places.counted.items()}
        coronary = places.coronary_candidates() if "automatic" in methods else None
        if scan.outlines is not None:
            by_vessel, own_total = places.scores()
            total = own_total if total is None else total
            vessels = vessels or by_vessel
    return ComparedScan(
        name=scan.name,
        patient=scan.patient,
        folder=job.folder.name,
        total=total,
        vessels=vessels,
        measured={key: method["total"]["clinical_agatston"] for key, method in methods.items()},
        measured_vessels={key: _by_vessel(method, job) for key, method in methods.items()},
        lesions=lesions,
        wrong=wrong,
        counts=counts,
        seconds=round(sum(content["seconds"].values()), 2),
        models=tuple(content["models"]),
        warnings=tuple(dict.fromkeys(warning["code"] for warning in content["warnings"])),
        candidates=scan_candidates(content, job.folder, coronary),
    )


def scan_vessels(job: Job) -> dict[str, float]:
    """Vessels according to the reference."""
    scores = job.scan.vessels
    if not scores and job.scan.total == 0:
        return dict.fromkeys(job.vessels, 0.0)
    return {vessel: scores[vessel] for vessel in job.vessels if vessel in scores}


def _artery(lesion: dict) -> str:
    """Of a lesion in `scores.json`: the one that its place suggests, where nobody assigned it."""
    return lesion.get("suggested_artery", lesion["artery"])


def _vessel(artery: str, vessels: dict[str, tuple[str, ...]]) -> str | None:
    return next((vessel for vessel, arteries in vessels.items() if artery in arteries), None)


def _by_vessel(method: dict, job: Job) -> dict[str, float]:
    scores = dict.fromkeys(job.vessels, 0.0)
    for lesion in method["lesions"]:
        vessel = _vessel(_artery(lesion), job.vessels)
        if vessel is not None:
            scores[vessel] += lesion["clinical_agatston"]
    return scores


@dataclass(frozen=True)
class _Counted:
    """A lesion of a method: voxels, flat indices into [k, j, i]; artery, and Agatston score on the clinical scale."""

    flat: np.ndarray
    artery: str
    agatston: float


class _Places:
    """Where calcium is, by the reference and by each method. Arrays are [k, j, i] on the scan's grid."""

    def __init__(self, job: Job, ct: CTScan, content: dict, methods: dict[str, dict]) -> None:
        self._job, self._ct, self._methods = job, ct, methods
        self._rules = ScoringRules.recorded(content["rules"]["threshold"])
        self._labels = np.zeros(ct.hu.shape, np.uint8)
        if job.scan.outlines is not None:
            self._labels = sitk.GetArrayFromImage(job.scan.outlines(ct))
        self._coronary = (self._labels > 0) & (self._labels <= max(Artery))
        inside = np.where(self._coronary, self._labels, np.uint8(0))
        self._reference: LesionSet = find_lesions(ct.image, inside, self._rules)
        self.counted = {key: self._lesions_of(key, method) for key, method in methods.items()}
        self._masks = {key: np.zeros(ct.hu.shape, bool) for key in methods}
        for key, lesions in self.counted.items():
            for lesion in lesions:
                self._masks[key].reshape(-1)[lesion.flat] = True

    def scores(self) -> tuple[dict[str, float], float]:
        """Agatston score of the reference by vessel, and in total."""
        by_vessel = dict.fromkeys(self._job.vessels, 0.0)
        for lesion in self._reference.lesions:
            vessel = _vessel(lesion.artery.key, self._job.vessels)
            if vessel is not None:
                by_vessel[vessel] += self._agatston(lesion)
        return by_vessel, sum(map(self._agatston, self._reference.lesions))

    def outlined(self) -> tuple[OutlinedLesion, ...]:
        outlined = []
        pictures_of = dict.fromkeys(self.counted, 0)
        ids = self._reference.id_map.reshape(-1)
        for lesion in sorted(self._reference.lesions, key=self._agatston, reverse=True):
            names, hits, pictures = {}, {}, {}
            for key, counted in self.counted.items():
                shares = [np.count_nonzero(ids[one.flat] == lesion.id) for one in counted]
                hits[key] = any(shares)
                if hits[key]:
                    names[key] = _vessel(counted[int(np.argmax(shares))].artery, self._job.vessels)
                elif pictures_of[key] < PICTURES:
                    pictures_of[key] += 1
                    where = np.flatnonzero(ids == lesion.id)
                    pictures[key] = self._picture(where, key, f"missed-{key}-{pictures_of[key]}")
            score = score_lesions([lesion], self._ct.image.GetSpacing(), self._rules)
            vessel = _vessel(lesion.artery.key, self._job.vessels) or "other"
            outlined.append(OutlinedLesion(vessel, score.agatston, score.volume_mm3, hits, names, pictures))
        return tuple(outlined)

    def wrong(self) -> tuple[WrongLesion, ...]:
        wrong = []
        coronary, labels = self._coronary.reshape(-1), self._labels.reshape(-1)
        for key, counted in self.counted.items():
            uncovered = [one for one in counted if not coronary[one.flat].any()]
            for n, one in enumerate(sorted(uncovered, key=lambda o: o.agatston, reverse=True)):
                values = labels[one.flat]
                sites = np.bincount(values[values > 0], minlength=1)
                site = site_of(int(sites.argmax())).key if sites.any() else None
                picture = self._picture(one.flat, key, f"wrong-{key}-{n + 1}") if n < PICTURES else None
                wrong.append(WrongLesion(key, _vessel(one.artery, self._job.vessels), one.agatston, site, picture))
        return tuple(wrong)

    def coronary_candidates(self) -> list[bool]:
        """True if the reference has coronary calcium in each candidate: those that count, then those left out, as
        `scores.json` lists them."""
        coronary = self._coronary.reshape(-1)
        voxels = [*(one.flat for one in self.counted["automatic"]), *self._left_out("automatic")]
        return [bool(coronary[flat].any()) for flat in voxels]

    def _left_out(self, key: str) -> list[np.ndarray]:
        """Voxels of what an automatic score leaves out. All of it has one label, so that candidates of two arteries
        that touch are one part there; its voxels are given to the nearest of them."""
        lesions = self._methods[key].get("left_out", [])
        if not lesions:
            return []
        labels = self._labels_of(key)
        labels = np.where(labels == Artery.UNASSIGNED, labels, np.uint8(0))
        middles = np.array([lesion["centroid_ras_mm"] for lesion in lesions])
        voxels = [np.zeros(0, np.intp) for _ in lesions]
        for flat in _parts(labels):
            near = np.linalg.norm(middles - self._middle_ras_mm(flat), axis=1)
            if near.min() <= SAME_PLACE_MM:
                voxels[int(near.argmin())] = flat
                continue
            off = np.linalg.norm(self._ras_mm(flat)[:, None] - middles, axis=2).argmin(1)
            for n in np.unique(off):
                voxels[n] = np.union1d(voxels[n], flat[off == n])
        return voxels

    def _agatston(self, lesion: Lesion) -> float:
        return score_lesions([lesion], self._ct.image.GetSpacing(), self._rules).agatston

    def _lesions_of(self, key: str, method: dict) -> list[_Counted]:
        """A method's lesions with their voxels. Raises CTError where its files do not fit each other."""
        voxels = _parts(counted_labels(self._labels_of(key), method))
        middles = np.array([self._middle_ras_mm(part) for part in voxels]).reshape(-1, 3)
        lesions = []
        for lesion in method["lesions"]:
            off = np.linalg.norm(middles - np.array(lesion["centroid_ras_mm"]), axis=1)
            if not len(off) or off.min() > SAME_PLACE_MM:
                raise CTError(f"{METHODS[key][1]} does not fit {LAST_FILE} beside it. Score the scan again.")
            lesions.append(_Counted(voxels[int(off.argmin())], _artery(lesion), lesion["clinical_agatston"]))
        return lesions

    def _labels_of(self, key: str) -> np.ndarray:
        """Of a method's image, uint8. Raises CTError where it is not on the scan's grid."""
        file = self._job.folder / METHODS[key][1]
        image = read_mask(file)
        if image.GetDirection() != self._ct.image.GetDirection():
            image = sitk.DICOMOrient(image, "LPS")
        labels = sitk.GetArrayFromImage(image)
        if labels.shape != self._ct.hu.shape:
            raise CTError(f"{file} is not on the grid of its CT. Score the scan again.")
        return labels

    def _ras_mm(self, flat: np.ndarray) -> np.ndarray:
        """Places of voxels, [n, 3]."""
        image = self._ct.image
        k, j, i = np.unravel_index(flat, self._ct.hu.shape)
        matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        return (np.stack([i, j, k], axis=1) @ matrix.T + image.GetOrigin()) * (-1, -1, 1)

    def _middle_ras_mm(self, flat: np.ndarray) -> np.ndarray:
        return self._ras_mm(flat).mean(0)

    def _picture(self, flat: np.ndarray, key: str, name: str) -> str:
        """File, below the output, of the slice that holds most of some voxels: reference and method outlined."""
        k, j, i = np.unravel_index(flat, self._ct.hu.shape)
        most = int(np.bincount(k).argmax())
        in_slice = k == most
        outlines = ((self._coronary, REFERENCE_COLOUR), (self._masks[key], METHOD_COLOUR))
        jpeg = patch_picture(self._ct, (most, j[in_slice].mean(), i[in_slice].mean()), outlines, PICTURE_MM)
        file = Path("pictures", self._job.folder.name, f"{name}.jpg")
        (self._job.output / file).parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(self._job.output / file, jpeg)
        return file.as_posix()


def _parts(labels: np.ndarray) -> list[np.ndarray]:
    """Voxels of each connected part of one label, flat indices."""
    flat = np.flatnonzero(labels)
    if not len(flat):
        return []
    part = connected_voxels(flat, labels.reshape(-1)[flat], labels.shape)
    ends = np.cumsum(np.bincount(part))
    return np.split(flat[np.argsort(part, kind="stable")], ends[:-1])


def site_name(key: str | None) -> str:
    """Name of `WrongLesion.at`."""
    return next((site.full_name for site in NonCoronary if site.key == key), "nothing labelled there")


def jobs_of(reference: Reference, folders: Sequence[Path | str], output: Path) -> list[Job | None]:
    """None for a scan that was not scored."""
    vessels = {vessel: tuple(arteries) for vessel, arteries in reference.vessels.items()}
    pairs = zip(reference.scans, folders, strict=True)
    return [None if isinstance(folder, str) else Job(scan, folder, vessels, output) for scan, folder in pairs]
