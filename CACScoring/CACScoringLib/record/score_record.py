"""The content of a `scores.json` as frozen dataclasses, whose fields are its keys.

A field with a default may be missing while it is empty (WHEN_SET); keys without a field are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.acquisition import Acquisition
from ..core.ct import CTScan, ScanWarning
from ..core.decoding import WHEN_SET, content_of, restore
from ..core.errors import CTError, UnreadableError, WrongValueError
from ..core.files import LAST_FILE, SCHEMA, parse_json, read_file
from ..core.labels import Artery, SiteMap
from .columns import LESIONS_CSV, Cell, lesion_cells
from .findings import BloodPool, CalibratedOn, Categories, EpicardialFat, Familiarity, MassCalibration, Normalisation
from .provenance import JOURNAL, Provenance, ReviewRecord
from .scores import Lesion, MethodScore, NonCoronaryScore, SumScore

if TYPE_CHECKING:
    import pandas

_TABLE = [name for name in LESIONS_CSV if name != "method"]
"""Columns of tables of the lesions that count."""


@dataclass(frozen=True)
class InputRecord:
    """The scan.

    Attributes:
        name: Name of the scan; None if it has none.
        size: Columns, rows and slices.
        spacing_mm: Distances of voxels, x, y and z.
        voxels_sha256: SHA-256 of the voxels (`CTScan.voxels_sha256`).
        series_sha256: SHA-256 of the DICOM series UID; None of other files.
    """

    name: str | None
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels_sha256: str
    series_sha256: str | None = None

    @classmethod
    def of(cls, scan: CTScan) -> InputRecord:
        """Return the record of a scan."""
        image = scan.image
        hashes = scan.voxels_sha256, scan.acquisition.series_sha256
        return cls(scan.name, image.GetSize(), image.GetSpacing(), *hashes)


@dataclass(frozen=True)
class HeartRecord:
    """The heart. source: Network or method that located it, or "given"."""

    source: str


@dataclass(frozen=True)
class ModelRecord:
    """A network that made the result."""

    name: str
    network: str
    sha256: str


@dataclass(frozen=True)
class EstimateModelRecord:
    """The network of a whole-scan estimate."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EstimateRecord:
    """A whole-scan estimate, as `whole_scan.estimates.WholeScanEstimate`: scores by artery, or a probability.

    Attributes:
        calcium: True if it predicts coronary calcium.
        undetermined: True if the model cannot tell; it then states no score.
        undetermined_agatston: Score by artery of what may be calcium, and is not in `agatston`; None below 0.5.
        risk_class: Class of the total.
        agreement: Agreement with each method; None with one that nobody reviewed.
    """

    model: EstimateModelRecord
    trust: str
    calcium: bool | None = None
    undetermined: bool = field(default=False, metadata=WHEN_SET)
    undetermined_agatston: dict[str, float] | None = field(default=None, metadata=WHEN_SET)
    agatston: dict[str, float] | None = field(default=None, metadata=WHEN_SET)
    total: float | None = field(default=None, metadata=WHEN_SET)
    risk_class: str | None = field(default=None, metadata=WHEN_SET)
    slice_weights: tuple[float, ...] | None = None
    probability: float | None = field(default=None, metadata=WHEN_SET)
    limit: float | None = field(default=None, metadata=WHEN_SET)
    contributions: dict[str, float] = field(default_factory=dict, metadata=WHEN_SET)
    agreement: dict[str, dict[str, object] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TruthRecord:
    """Truth of a digital patient. mass_mg: Mass of calcium, "total" and by artery."""

    mass_mg: dict[str, float]

    @classmethod
    def of(cls, mass_mg: Mapping[Artery, float]) -> TruthRecord:
        """Return the record of masses by artery."""
        return cls({"total": sum(mass_mg.values()), **{artery.key: mass for artery, mass in mass_mg.items()}})


class ScoredCalcium:
    """Score of a scan by the clinical rule, computed (`ScoreResult`) or stored (`ScoreRecord`)."""

    @property
    def _record(self) -> ScoreRecord:
        raise NotImplementedError

    @property
    def status(self) -> str:
        """State of the clinical score: "reviewed", "given", "automatic" or "candidates".

        Given are labels of nobody who is named as their reader. Candidates are anything dense that neither a person nor
        a network evaluated: their total is no calcium score.
        """
        return self._record.methods["threshold"].status

    @property
    def total(self) -> SumScore:
        """Total score by the clinical rule: `total.agatston`, `total.volume_mm3`, `total.mass_mg`."""
        return self._record.methods["threshold"].total

    @property
    def interval(self) -> tuple[float, float] | None:
        """90 % prediction interval of the total Agatston score; None if unknown or withheld."""
        return self._record.methods["threshold"].total.interval_90

    @property
    def category(self) -> str | None:
        """Risk class: "0", "1–10", "11–100", "101–400" or "> 400"; None for candidates and if withheld."""
        categories = self._record.categories
        return None if categories is None else categories.risk_class

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of the categories "0", "1-99", "100-399" and "400+"; empty if unknown, withheld or reviewed."""
        return self._record.methods["threshold"].category_probabilities

    @property
    def arteries(self) -> SiteMap[Artery, SumScore]:
        """Score of each coronary artery by the clinical rule: `arteries["LAD"]`."""
        return self._record.methods["threshold"].arteries

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """Lesions counted by the clinical rule, by artery and then from head to feet."""
        return self._record.methods["threshold"].lesions

    @property
    def left_out(self) -> tuple[Lesion, ...]:
        """Candidates that an automatic score does not count."""
        return self._record.methods["threshold"].left_out

    def table(self) -> list[dict[str, Cell]]:
        """List the lesions that count; their Agatston scores add up to the total.

        Returns:
            One row per lesion of `lesions`, with the columns of `lesions.csv`. That file also has those of the calcium
            map, those left out, and those outside the coronary arteries.

        Examples:
            >>> result = cac.score("ct.nrrd", threshold_only=True)
            >>> row = result.table()[0]
            >>> row["lesion"], row["artery"]
            (1, 'unassigned')
        """
        rows = map(lesion_cells, self.lesions)
        return [{name: row.get(name) for name in _TABLE} for row in rows]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the table as a `pandas.DataFrame`. Raises ImportError without pandas."""
        import pandas

        return pandas.DataFrame(self.table(), columns=_TABLE)

    def __repr__(self) -> str:
        if self.status == "candidates":
            return f"{type(self).__name__}(no score: {self.total.lesions} candidates)"
        return f"{type(self).__name__}(agatston={self.total.agatston:.1f}, lesions={self.total.lesions}, {self.status})"


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoreRecord(ScoredCalcium):
    """The content of a `scores.json`, whose keys the fields are; the reference of results describes them.

    The rules of the methods are written beside them, under "rules".

    Attributes:
        second_opinions: Whole-scan estimates by network.
    """

    input: InputRecord
    acquisition: Acquisition
    measured: BloodPool | None = None
    normalisation: Normalisation | None = None
    familiarity: Familiarity | None = None
    mass_calibration: MassCalibration | None = None
    heart: HeartRecord
    epicardial_fat: EpicardialFat | None = None
    warnings: tuple[ScanWarning, ...]
    models: tuple[ModelRecord, ...]
    methods: dict[str, MethodScore]
    territories: dict[str, object] | None = None
    slice_probabilities: tuple[float | None, ...] | None = None
    slices_positive_from: float | None = None
    slices_by_reader: dict[str, str] = field(default_factory=dict)
    slices_decomposed: tuple[bool, ...] | None = None
    decomposition_settings: dict[str, object] | None = None
    candidate_evidence: dict[str, object] | None = None
    calibrated_on: CalibratedOn | None = None
    categories: Categories | None = None
    truth: TruthRecord | None = None
    second_opinions: dict[str, EstimateRecord] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: Provenance | None = None
    review: ReviewRecord | None = field(default=None, metadata=WHEN_SET)

    @property
    def _record(self) -> ScoreRecord:
        return self

    def _repr_html_(self) -> str:
        """Return severe warnings, the total and the lesions that count as HTML for a notebook's cell."""
        severe = [f"<p><b>{escape(warning.message)}</b></p>" for warning in self.warnings if warning.severe]
        rows = self.table()
        names = [name for name in _TABLE if any(row[name] is not None for row in rows)]
        lines = [[_in_cell(row[name]) for name in names] for row in rows]
        cells = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines]
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        table = f"<table><tr>{head}</tr>{''.join(cells)}</table>" if rows else ""
        return f"{''.join(severe)}<p>{escape(repr(self))}</p>{table}"

    def as_json(self, identify: bool = False) -> dict[str, Any]:
        """Return the content of `scores.json`. identify: Keep the patient's identity and the folders of paths."""
        content = content_of(self.stated(identify))
        digests = {"identity_digests": self.acquisition.identity_digests}
        return {"schema": SCHEMA, **content, "acquisition": self.acquisition.facts(identify) | digests}

    def stated(self, identify: bool) -> ScoreRecord:
        """Return the record as results state it. identify: Keep the folders of paths, which often name patients."""
        provenance = self.provenance and self.provenance.stated(identify)
        return replace(self, provenance=provenance, warnings=tuple(severe_first(self.warnings)))

    def as_written(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of `scores.json`."""
        methods = content["methods"]
        pairs = [(method.pop("non_coronary"), method.pop("outside")) for method in methods.values()]
        rules = {name: method.pop("rules") for name, method in methods.items()}
        scores, lesions = pairs[0] if pairs else (None, [])
        elsewhere = None if scores is None else {**scores, "lesion_list": lesions}
        return {**content, "non_coronary": elsewhere, "rules": rules}

    @staticmethod
    def as_read(content: dict[str, Any]) -> dict[str, Any]:
        """Return the fields from the keys of `scores.json`. Raises WrongValueError."""
        methods, rules = content.get("methods"), content.get("rules")
        if not isinstance(methods, dict) or not isinstance(rules, dict):
            raise WrongValueError("methods" if isinstance(rules, dict) else "rules")
        elsewhere = content.get("non_coronary")
        outside = elsewhere.get("lesion_list", ()) if isinstance(elsewhere, dict) else ()
        of_methods = dict(methods)
        for number, (name, method) in enumerate(methods.items()):
            if isinstance(method, dict):
                parts = {"rules": rules.get(name), "non_coronary": elsewhere, "outside": () if number else outside}
                of_methods[name] = {**method, **parts}
        return {**content, "methods": of_methods}

    @property
    def non_coronary(self) -> NonCoronaryScore | None:
        """Calcium outside the arteries; None if neither network nor reader separated it."""
        return next((method.non_coronary for method in self.methods.values()), None)

    @property
    def outside(self) -> tuple[Lesion, ...]:
        """Lesions outside the arteries, by the clinical rule."""
        return next((method.outside for method in self.methods.values()), ())

    @property
    def provenance_cells(self) -> dict[str, str | None]:
        """Cells of `provenance.COLUMNS`; empty if the provenance is unknown."""
        confirmation = None if self.review is None else self.review.confirmation
        confirmed = (None, None) if confirmation is None else (confirmation.reader, confirmation.time)
        return {} if self.provenance is None else self.provenance.cells(self.input.voxels_sha256, *confirmed)

    @property
    def patient_and_journal_cells(self) -> dict[str, Any]:
        """Cells of PATIENT_AND_JOURNAL; None without a patient ID or a journal."""
        mark = None if self.review is None else self.review.journal
        return self.acquisition.pseudonym | (dict.fromkeys(JOURNAL) if mark is None else mark.cells)

    @property
    def slice_limits(self) -> tuple[float | None, float | None]:
        """Probability from which slices were decomposed, and that of a classifier that decides alone, as published."""
        limit = (self.decomposition_settings or {}).get("slice_threshold")
        return float(limit) if isinstance(limit, (int, float)) else None, self.slices_positive_from

    @property
    def noise_hu(self) -> float | None:
        """Noise of the scan; None if it could not be measured."""
        return None if self.measured is None else self.measured.noise_hu

    @property
    def model_hashes(self) -> dict[str, str]:
        """SHA-256 of the models by network."""
        return {model.network: model.sha256 for model in self.models}

    @property
    def warning_codes(self) -> tuple[str, ...]:
        """Codes of the warnings, each once."""
        return tuple(dict.fromkeys(warning.code for warning in self.warnings))

    @property
    def withholds(self) -> bool:
        """True if interval and category of the automatic clinical score are withheld."""
        method = self.methods["threshold"]
        return method.status == "automatic" and method.rules.is_clinical and self.categories is None

    def severe_warnings(self, name: str) -> list[ScanWarning]:
        """Return the severe warnings, which every command that uses the score repeats. name: The scan in them."""
        severe = [warning for warning in self.warnings if warning.severe]
        return [replace(warning, message=f"{name}: {warning.message}") for warning in severe]


def _in_cell(value: Cell) -> str:
    """Return a value of a table in words; numbers have four digits."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def severe_first(warnings: Iterable[ScanWarning]) -> list[ScanWarning]:
    """Return warnings in their order, the severe ones first."""
    return sorted(warnings, key=lambda warning: not warning.severe)


def read_result(folder: Path | str) -> ScoreRecord:
    """Read the `scores.json` of a result.

    Args:
        folder: Folder that `cac score` wrote, or the file.

    Raises:
        UnreadableError: It is missing, damaged, or of another schema.

    Examples:
        >>> cac.score("ct.nrrd", threshold_only=True).write("scored")
        >>> record = cac.read_result("scored")
        >>> record.methods["threshold"].status, record.input.size
        ('candidates', (240, 240, 54))
    """
    path = Path(folder)
    file = path / LAST_FILE if path.is_dir() else path
    try:
        text = read_file(file)
    except FileNotFoundError as error:
        lack = f"has no {LAST_FILE}" if path.is_dir() else "does not exist"
        raise UnreadableError(f"{path} {lack}. Give a results folder of cac score.") from error
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}. Give a results folder of cac score."
        raise UnreadableError(message) from error
    return record_from_text(text, str(file))


def is_result(path: Path) -> bool:
    """True if a path is a result rather than a CT."""
    return path.name == LAST_FILE or (path / LAST_FILE).is_file()


@lru_cache(maxsize=2)
def record_from_text(text: str | bytes, name: str) -> ScoreRecord:
    """Read the text of a `scores.json`. name: What messages call it. Raises as `read_result`."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UnreadableError(f"{name} holds no readable result ({error}). Score the scan again.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UnreadableError(f"{name} is of schema {schema!r}, not {SCHEMA}. Score the scan again with this version.")
    return record_from(content, name)


def record_from(content: object, name: str) -> ScoreRecord:
    """Read the content of a `scores.json`. name: What messages call it. Raises UnreadableError if it is damaged."""
    try:
        return restore(content, ScoreRecord)
    except WrongValueError as wrong:
        raise UnreadableError(f"{name} is damaged: it has no valid {wrong}. Score the scan again.") from None
    except CTError as error:  # of rules that contradict each other
        raise UnreadableError(f"{name} is damaged: {error} Score the scan again.") from None
