"""Records of a study's scans: the scores by every method, the truth where it is known; kept as lines of JSON.

Nothing here reads images: `studies.truth` makes the records, the studies (`reproducibility`, `detection`, …) read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from CACScoringLib.core.ct import CTError

ARTERIES = ("LM", "LAD", "LCX", "RCA")

MG, HU_MM3 = "mg", "HU·mm³"
"""Units of mass: of digital patients, pseudo-mass over the HU that 1 mg in 1 mm³ adds; else the pseudo-mass itself."""


class RecordError(CTError):
    """A record cannot be read. The message says what to do."""


@dataclass(frozen=True)
class Value:
    """One method's score of one scan.

    mass: in the record's unit. agatston: on the clinical scale, where the model knows it. arteries: mass and Agatston
    score by artery (ARTERIES). Of the method "slices", mass and agatston are both the count, and arteries is empty.
    """

    mass: float
    agatston: float
    arteries: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Truth:
    """True calcium of a patient. distractors: kinds of calcium and metal that are not coronary."""

    mass_mg: float
    arteries_mg: dict[str, float]
    distractors: tuple[str, ...]


@dataclass(frozen=True)
class HeartAgreement:
    """Agreement of the segmented heart with the true one: Dice, Hausdorff distance, average symmetric surface
    distance."""

    dice: float
    hausdorff_mm: float
    surface_mm: float


@dataclass(frozen=True)
class StudyRecord:
    """One scan of a pair.

    scan: its name in the cohort. patient: who. number: 1 or 2. unit: of mass, MG or HU_MM3.
    visible: whether coronary calcium is visible in some slice; by the reader's regions where no truth is known; None
    where neither is. visible_arteries: in which arteries it is.
    values: by METHODS, without those that could not be had. slices: of each slice with heart, whether calcium is
    visible in it and the classifier's probability. map_lesions: artery and mass of each lesion of the map, and whether
    it holds coronary calcium, None where unknown. acquisition: facts of the scan, as in `scores.json`, and with what it
    was scored (`models_of`, decomposition_settings, candidate_evidence, hu_mm3_per_mass: HU·mm³ for one unit of mass).
    refused: why it could not be scored; then values is empty. warnings: what could not be read, and so is left out.
    """

    scan: str
    patient: str
    number: int
    unit: str
    visible: bool | None
    visible_arteries: tuple[str, ...] | None
    truth: Truth | None
    values: dict[str, Value]
    slices: tuple[tuple[bool, float], ...]
    slice_threshold: float
    map_lesions: tuple[tuple[str, float, bool | None], ...]
    heart: HeartAgreement | None
    acquisition: dict[str, object]
    refused: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> str | None:
        """Kind of the scan.

        "visible": coronary calcium shows; "hidden": it is there, but no slice shows it; "distractor": all calcium and
        metal is elsewhere; "clean": there is none. None where that is unknown: then only "visible" is known.
        """
        if self.visible:
            return "visible"
        if self.truth is None or self.visible is None:
            return None
        if self.truth.mass_mg > 0:
            return "hidden"
        return "distractor" if self.truth.distractors else "clean"


def pairs_of(records: Iterable[StudyRecord]) -> list[tuple[StudyRecord, StudyRecord]]:
    """Scans 1 and 2 of each patient with both scored, in the order of the records."""
    by_patient: dict[str, dict[int, StudyRecord]] = {}
    for record in records:
        if record.refused is None:
            by_patient.setdefault(record.patient, {})[record.number] = record
    return [(scans[1], scans[2]) for scans in by_patient.values() if {1, 2} <= set(scans)]


def models_of(record: StudyRecord) -> list[dict]:
    """Name, network and SHA-256 of the models that scored it; empty where it was not scored."""
    return record.acquisition.get("models", [])


def from_json(content: dict) -> StudyRecord:
    """The record of `dataclasses.asdict`. Raises RecordError."""
    try:
        truth, heart, arteries = content["truth"], content["heart"], content["visible_arteries"]
        return StudyRecord(
            **{
                **content,
                "truth": None if truth is None else Truth(**{**truth, "distractors": tuple(truth["distractors"])}),
                "heart": None if heart is None else HeartAgreement(**heart),
                "values": {method: value_from_json(value) for method, value in content["values"].items()},
                "visible_arteries": None if arteries is None else tuple(arteries),
                "slices": tuple(map(tuple, content["slices"])),
                "map_lesions": tuple(map(tuple, content["map_lesions"])),
                "warnings": tuple(content["warnings"]),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"A record cannot be read ({error}). Remove the file of records.") from error


def value_from_json(content: dict) -> Value:
    """The value of `dataclasses.asdict`."""
    return Value(content["mass"], content["agatston"], {a: tuple(pair) for a, pair in content["arteries"].items()})
