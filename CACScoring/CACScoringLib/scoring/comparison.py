"""Serial comparison: has a patient's calcium changed by more than two scans of unchanged calcium differ?

Changes are compared with the repeatability limits of a scan–rescan study, stored with the model (`repeatability`).
Without such limits, scores have changed if their intervals (`uncertainty`) do not overlap. Without either, or for scans
that cannot be compared, there is no verdict, only the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core.acquisition import PSEUDONYM, Acquisition, agent_named, ordinal_of
from ..core.ct import ScanWarning
from ..core.errors import OtherPatientError
from ..core.labels import ARTERIES
from ..core.text import abbreviated_list
from ..networks.configs import JUDGES
from ..quality.calibration import Limits, Repeatability
from ..record.findings import CalibratedOn
from ..record.score_record import ScoreRecord

SCHEMA = "cac-comparison/1"

CHANGED, WITHIN, UNKNOWN = "changed", "within", "unknown"
VERDICTS = {
    CHANGED: "changed beyond the repeatability limits",
    WITHIN: "within the repeatability limits",
    UNKNOWN: "cannot be determined",
}
INTERVAL_VERDICTS = {
    CHANGED: "changed: the 90 % intervals of both scans do not overlap",
    WITHIN: "no change shown: the 90 % intervals of both scans overlap",
}
BY_LIMITS, BY_INTERVALS = "limits", "intervals"
"""Bases of a verdict."""

MEASURE = "cac evaluate reproducibility"
"""Command that measures repeatability limits."""

METHODS = ("threshold", "decomposition")
QUANTITIES = ("agatston", "volume_mm3", "pseudo_mass_hu_mm3")
TOTAL = "total"

SAME_KVP = 0.5
SAME_RATIO = 1.25
"""Slice thickness and spacing of comparable scans differ by less than this factor."""

NOISE_RATIO = 1.5
"""Noise that differs by this factor is worth a warning."""

OTHER_NOISE_RATIO = 2.0
"""Noise that differs by this factor, as from a quarter of the dose or a sharp kernel, makes scans incomparable."""

DAYS_OF_YEAR = 365.25

_SIDES = ("earlier", "later")
_SCORES = {"automatic": "automatic scores", "decomposition": "calcium maps"}
_NOT_WRITTEN = ("limits", "settings", "candidate_evidence")
_OF_CHANGE = (
    *("earlier", "later", "difference", "interval", "per_cent", "per_year", "difference_of_roots", "limit"),
    *("based_on", "verdict", "text"),
)
"""Keys of a change that are its attributes."""

Pair = tuple[ScoreRecord, ScoreRecord]
"""Results of the earlier and the later scan."""


@dataclass(frozen=True)
class Change:
    """Change of one score between two results.

    Attributes:
        quantity: One of QUANTITIES.
        part: "total" or an artery's key.
        earlier: Earlier score.
        later: Later score.
        limit: Repeatability limit at this level; None if no limits hold.
        verdict: Key of VERDICTS.
        reason: Reason why there is no verdict.
        intervals: Intervals of both scores, lowest and highest; None if one is unknown.
        years: Time between the scans; None if it is unknown, or if they are of one day or in exchanged order.
    """

    quantity: str
    part: str
    earlier: float
    later: float
    limit: float | None
    verdict: str
    reason: str | None = None
    intervals: tuple[tuple[float, float], tuple[float, float]] | None = None
    years: float | None = None

    @property
    def based_on(self) -> str | None:
        """BY_LIMITS or BY_INTERVALS; None without a verdict."""
        if self.verdict == UNKNOWN:
            return None
        return BY_INTERVALS if self.limit is None else BY_LIMITS

    @property
    def difference(self) -> float:
        return self.later - self.earlier

    @property
    def difference_of_roots(self) -> float:
        return math.sqrt(self.later) - math.sqrt(self.earlier)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Interval of the true difference: ± the limit (95 %), or between the far ends of both scores' intervals.

        No more than the earlier score can vanish.
        """
        if self.limit is not None:
            low, high = self.difference - self.limit, self.difference + self.limit
        elif self.intervals is not None and self.based_on is not None:
            low, high = self.intervals[1][0] - self.intervals[0][1], self.intervals[1][1] - self.intervals[0][0]
        else:
            return None
        return max(low, -self.earlier), high

    @property
    def per_cent(self) -> tuple[float, ...]:
        """Difference in per cent of the earlier score, then the ends of its interval if known; empty if that is 0."""
        return self._times(100 / self.earlier) if self.earlier > 0 else ()

    @property
    def per_year(self) -> tuple[float, ...]:
        """Difference in a year, then the ends of its interval if known; empty if the time is unknown."""
        return self._times(1 / self.years) if self.years else ()

    def _times(self, factor: float) -> tuple[float, ...]:
        return tuple(factor * value for value in (self.difference, *(self.interval or ())))

    @property
    def text(self) -> str:
        """Verdict in words."""
        if self.based_on == BY_INTERVALS:
            return INTERVAL_VERDICTS[self.verdict]
        return VERDICTS[self.verdict] + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class MethodComparison:
    """Comparison by one method.

    Attributes:
        method: "threshold" or "decomposition".
        bars: Reasons why the scans cannot be compared; empty if they can.
        changes: Change of each score; empty if one result lacks the method.
        status: Status of both scores; None if they differ.
        no_limits: Reasons why intervals are compared instead of repeatability limits.
        calibrated_on: Reference scans that the intervals were calibrated on; None for digital patients.
    """

    method: str
    bars: tuple[str, ...]
    changes: tuple[Change, ...]
    status: str | None = None
    no_limits: tuple[str, ...] = ()
    calibrated_on: CalibratedOn | None = None


@dataclass(frozen=True, repr=False)
class Comparison:
    """Serial comparison of two scans of one patient.

    Attributes:
        earlier: Name and compared facts of the first scan.
        later: Name and compared facts of the second scan.
        methods: Comparison by each method.
        warnings: Doubts about the comparison.
        repeatability: Limits of the scan–rescan study; None without one.
        days: Days between the scans, negative in exchanged order; None if unknown.
    """

    earlier: dict[str, object]
    later: dict[str, object]
    methods: tuple[MethodComparison, ...]
    warnings: tuple[ScanWarning, ...]
    repeatability: Repeatability | None
    days: int | None = None

    def __repr__(self) -> str:
        totals = (
            f"{method.method}: {change.earlier:.1f} to {change.later:.1f}, {change.text}"
            for method in self.methods
            for change in method.changes[:1]
        )
        return f"Comparison({'; '.join(totals)})"

    def as_json(self) -> dict[str, Any]:
        """Return the content of `comparison.json`. Within one schema keys may be added only."""
        provenance = self.repeatability and asdict(self.repeatability)
        return {
            "schema": SCHEMA,
            "earlier": self.earlier,
            "later": self.later,
            "days": self.days,
            "warnings": [asdict(warning) for warning in self.warnings],
            "limits": provenance and {name: value for name, value in provenance.items() if name not in _NOT_WRITTEN},
            "methods": {
                method.method: {
                    "cannot_be_said": list(method.bars),
                    "no_limits": list(method.no_limits),
                    "scaled_agatston": method.method == "decomposition",
                    "status": method.status,
                    **{
                        quantity: {
                            change.part: {
                                "intervals_90": change.intervals,
                                **{name: getattr(change, name) for name in _OF_CHANGE},
                            }
                            for change in method.changes
                            if change.quantity == quantity
                        }
                        for quantity in QUANTITIES
                    },
                }
                for method in self.methods
            },
        }


def check_patients(earlier: Acquisition, later: Acquisition) -> None:
    """Raise OtherPatientError if scans are of different patients."""
    if difference := difference_of_patients(earlier, later):
        raise OtherPatientError(
            f"The scans {difference}, so they are not compared. Check which scans were given. If this is one "
            "patient, as after de-identification, compare with --different-patients, which the result states."
        )


def compare(
    earlier: ScoreRecord,
    later: ScoreRecord,
    repeatability: Repeatability | None,
    different_patients: bool = False,
    identify: bool = False,
) -> Comparison:
    """Compare two results.

    Args:
        earlier: Result of the first scan; identifying facts in it are compared too, but not kept.
        later: Alike.
        repeatability: Limits of a scan-rescan study; None for none.
        different_patients: Compare, with a warning, scans whose headers state different patients.
        identify: Keep the study dates.

    Raises:
        OtherPatientError: The scans are of different patients.
    """
    pair = earlier, later
    if not different_patients:
        check_patients(earlier.acquisition, later.acquisition)
    bars, days = _acquisition_bars(pair), _days_between(pair)
    names = (name for name in METHODS if any(name in record.methods for record in pair))
    years = days / DAYS_OF_YEAR if days and days > 0 else None
    methods = tuple(_method(name, pair, repeatability, bars, years) for name in names)
    warnings = (*_patient_warnings(pair, days), *_scan_warnings(pair, repeatability), *_method_warnings(pair))
    facts = _facts(earlier, identify), _facts(later, identify)
    return Comparison(*facts, methods, warnings, repeatability, days)


def _method(
    name: str, pair: Pair, repeatability: Repeatability | None, acquisition_bars: list[str], years: float | None
) -> MethodComparison:
    for side, record in zip(_SIDES, pair, strict=True):
        if name not in record.methods:
            return MethodComparison(name, (f"the {side} scan was not scored by this method",), ())
    methods = [record.methods[name] for record in pair]
    statuses = [method.status for method in methods]
    kind = "automatic" if name == "threshold" and statuses == ["automatic", "automatic"] else name
    bars = [*acquisition_bars, *_status_bars(statuses), *_rule_bars(name, pair), *_range_bars(statuses, pair)]
    if kind != "threshold":
        bars += _model_bars(kind, pair)
    no_limits = _limit_bars(kind, pair[0], repeatability)
    changes = []
    for quantity in QUANTITIES:
        key = "clinical_agatston" if quantity == "agatston" else quantity
        for part in (TOTAL, *ARTERIES):
            scores = [method.total if part == TOTAL else method.arteries[part] for method in methods]
            earlier, later = (score.interval_90 if quantity == "agatston" else None for score in scores)
            change = Change(
                quantity=quantity,
                part=part,
                earlier=getattr(scores[0], key),
                later=getattr(scores[1], key),
                limit=None,
                verdict=UNKNOWN,
                reason=bars[0] if bars else None,
                intervals=(earlier, later) if earlier and later else None,
                years=years,
            )
            if not bars:
                change = _evaluated(change, _limits_of(change, kind, repeatability, no_limits))
            changes.append(change)
    if not any(change.based_on == BY_INTERVALS for change in changes):
        bars, no_limits = [*bars, *no_limits], []
    return MethodComparison(
        method=name,
        bars=tuple(bars),
        changes=tuple(changes),
        status=statuses[0] if statuses[0] == statuses[1] else None,
        no_limits=tuple(no_limits),
        calibrated_on=pair[1].calibrated_on,
    )


def _evaluated(change: Change, limits: Limits | str) -> Change:
    """Add the verdict to a change. limits: Limits that hold, or the reason why none do."""
    if isinstance(limits, str):
        if change.intervals is None:
            return replace(change, reason=limits)
        (low, high), (later_low, later_high) = change.intervals
        return replace(change, verdict=CHANGED if later_low > high or low > later_high else WITHIN)
    mean = (change.earlier + change.later) / 2
    limit = float(limits.at(mean))
    if limit >= 2 * mean > 0:  # the largest difference of two scores with this mean
        reason = "the repeatability of scores of this size is too poor for any difference to exceed the limit"
        return replace(change, limit=limit, reason=reason)
    return replace(change, limit=limit, verdict=CHANGED if abs(change.difference) > limit else WITHIN)


def _limits_of(change: Change, kind: str, repeatability: Repeatability | None, no_limits: list[str]) -> Limits | str:
    """Return the limits that hold for a change, or the reason why none do.

    kind: Key of the stored limits. no_limits: Reasons why none hold for the method.
    """
    if repeatability is None or no_limits:
        return no_limits[0]
    parts = repeatability.limits.get(kind, {}).get(change.quantity, {})
    stored = parts.get(TOTAL if change.part == TOTAL else "artery")
    if stored is None:
        return f"no repeatability limits are stored for {'this score' if change.part == TOTAL else 'single arteries'}"
    if (change.earlier + change.later) / 2 > stored.highest:
        return f"the scan-rescan study included no scores this high (up to {stored.highest:,.0f})"
    return stored


def _ratio(first: float, second: float) -> float:
    return max(first, second) / min(first, second) if min(first, second) > 0 else 1.0


def _other_words(first: object, second: object) -> bool:
    return str(first).strip().lower() != str(second).strip().lower()


_BARS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("kernel", "the kernels differ ({} and {})", _other_words),
    ("gating", "the gating modes differ ({} and {})", _other_words),
    ("kvp", "the tube voltages differ ({:g} and {:g} kVp)", lambda a, b: abs(a - b) > SAME_KVP),
    ("slice_thickness_mm", "the slice thicknesses differ ({:g} and {:g} mm)", lambda a, b: _ratio(a, b) >= SAME_RATIO),
    ("slice_spacing_mm", "the slice spacings differ ({:g} and {:g} mm)", lambda a, b: _ratio(a, b) >= SAME_RATIO),
    ("noise_hu", "the noise differs too much ({:.0f} and {:.0f} HU)", lambda a, b: _ratio(a, b) >= OTHER_NOISE_RATIO),
)
"""Facts of both scans: key, message, and a function that is true if the scans cannot be compared."""


def _pair_of_facts(name: str, pair: Pair) -> tuple[Any, Any] | None:
    """Return a fact of both scans; None if one does not state it."""
    first, second = (_fact(name, record) for record in pair)
    return None if first is None or second is None else (first, second)


def _fact(name: str, record: ScoreRecord) -> Any:
    if name == "slice_spacing_mm":
        return record.input.spacing_mm[2]
    return record.noise_hu if name == "noise_hu" else getattr(record.acquisition, name)


def _acquisition_bars(pair: Pair) -> list[str]:
    """Return reasons why the scans themselves cannot be compared."""
    facts = ((_pair_of_facts(name, pair), message, differ) for name, message, differ in _BARS)
    bars = [message.format(*values) for values, message, differ in facts if values and differ(*values)]
    if pair[0].input.voxels_sha256 and pair[0].input.voxels_sha256 == pair[1].input.voxels_sha256:
        bars.insert(0, "both are the same scan (all voxels are equal); give two different scans")
    for side, record in zip(_SIDES, pair, strict=True):
        if "contrast-enhanced" in record.warning_codes:
            bars.append(f"the {side} scan was acquired with contrast")
    agents = [agent_named(record.acquisition.contrast_agent) is not None for record in pair]
    if agents[0] != agents[1]:
        bars.append(f"only the {_SIDES[agents.index(True)]} scan's DICOM tag names a contrast agent")
    return bars


def _compared_identity(first: Acquisition, second: Acquisition) -> tuple[set[str], set[str]]:
    """Return the facts of `Acquisition.identity` that agree and that differ, by their digests if of one key."""
    is_same_key = first.patient_key is not None and first.patient_key == second.patient_key
    facts, later = (scan.identity_digests if is_same_key else scan.identity for scan in (first, second))
    agreeing = {name for name, fact in facts.items() if later.get(name) == fact}
    differing = (facts.keys() & later.keys()) - agreeing
    is_issued_once = ("patient_id_issuer" in facts) != ("patient_id_issuer" in later)
    if is_issued_once and not agreeing & {"patient_name", "patient_birth_date"} and "patient_id" in agreeing:
        differing.add("patient_id_issuer")
    return agreeing, differing


def difference_of_patients(*scans: Acquisition) -> str:
    """Return what tells the patients of two scans apart; empty if nothing does.

    A patient whose ID and birth date agree may have changed the name.
    """
    agreeing, differing = _compared_identity(*scans)
    if {"patient_id", "patient_birth_date"} <= agreeing:
        differing.discard("patient_name")
    if differing:
        return f"differ in {' and '.join(sorted(differing)).replace('_', ' ').replace(' id', ' ID')}"
    return "are of patients of different sexes" if len({scan.patient_sex for scan in scans} - {None}) > 1 else ""


def _days_between(pair: Pair) -> int | None:
    """Return the days between the studies, by their dates or by shifted days of one patient; None if unknown."""
    days = [ordinal_of(record.acquisition.study_date) for record in pair]
    if None in days and len({record.acquisition.patient_digest for record in pair}) == 1:
        days = [record.acquisition.shifted_day for record in pair]
    return None if days[0] is None or days[1] is None else days[1] - days[0]


def _patient_warnings(pair: Pair, days: int | None) -> list[ScanWarning]:
    warnings = []
    if difference := difference_of_patients(*(record.acquisition for record in pair)):
        message = f"The scans {difference}. They were compared on request (--different-patients)."
        warnings.append(ScanWarning("comparison-patients", message))
    key, later_key = _pair_of_facts("patient_key", pair) or (None, None)
    if key != later_key:
        message = (
            f"The pseudonyms of both scans were made with different keys ({key} and {later_key}), of two sites or "
            "because a key was lost, so they do not show whether this is one patient."
        )
        warnings.append(ScanWarning("comparison-patient-keys", message))
    if days is not None and days < 0:
        message = "By the dates of the studies, the scan given as the later one was acquired first."
        warnings.append(ScanWarning("comparison-order", message))
    return warnings


def _status_bars(statuses: list[str]) -> list[str]:
    for status in ("reviewed", "given"):
        if statuses.count(status) == 1:
            return [f"only the {_SIDES[statuses.index(status)]} scan's lesions were {status}"]
    if statuses.count("candidates") == 1:
        side = _SIDES[statuses.index("candidates")]
        return [f"the {side} scan's candidates were not evaluated, so they are not a calcium score"]
    if "candidates" in statuses:
        return ["the candidates have not been reviewed, so they are not a calcium score"]
    return []


def _range_bars(statuses: list[str], pair: Pair) -> list[str]:
    """Return why automatic scores of a scan out of the calibration range are not compared: no study measured them."""
    for side, status, record in zip(_SIDES, statuses, pair, strict=True):
        rating = record.familiarity
        if status == "automatic" and rating is not None and rating.out_of_range:
            return [f"the {side} scan is out of the calibration range of the models ({rating.causes[0]})"]
    return []


def _rule_bars(name: str, pair: Pair) -> list[str]:
    # A calibration changes the mass in mg only, which is not compared; a name tells nothing else than the values.
    earlier, later = (vars(record.methods[name].rules) for record in pair)
    names = _differing(earlier, later, unless=("name", "calibration_mg_per_mm3_hu"))
    return [f"the rules differ ({names})"] if names else []


def _model_bars(kind: str, pair: Pair) -> list[str]:
    earlier, later = pair
    if names := _differing(_models_of(kind, earlier.model_hashes), later.model_hashes, shared=True):
        return [f"the models differ ({names}): score both with the same"]
    if _evidence_differs(kind, earlier.candidate_evidence, later.candidate_evidence):
        return ["the candidates were judged by different calibrations"]
    if earlier.calibrated_on != later.calibrated_on:
        return ["the models were calibrated on different scans"]
    if kind == "automatic":
        return []
    names = _differing(earlier.decomposition_settings, later.decomposition_settings, unless=("batch_size",))
    return [f"the calcium maps were made with other settings ({names})"] if names else []


def _models_of(kind: str, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of the networks that a score depends on: of an automatic clinical score those that judge it."""
    return {name: value for name, value in hashes.items() if kind != "automatic" or name in JUDGES}


def _evidence_differs(kind: str, first: object, second: object) -> bool:
    """Return True if lesions were judged otherwise; of a map beside a reviewed clinical score it is not recorded."""
    return first != second and (kind == "automatic" or None not in (first, second))


def _limit_bars(kind: str, record: ScoreRecord, repeatability: Repeatability | None) -> list[str]:
    if repeatability is None:
        return ["no repeatability limits are stored with the model"]
    if kind != "decomposition" and not record.methods["threshold"].rules.is_clinical:
        return ["the stored limits hold for the clinical rule only"]
    if kind == "threshold":
        return []
    if kind not in repeatability.limits:
        return [f"no limits of {_SCORES[kind]} are stored for this calibration; measure them ({MEASURE})"]
    if names := _differing(_models_of(kind, record.model_hashes), repeatability.models, shared=True):
        return [f"the stored limits were found with other models ({names}); measure them again ({MEASURE})"]
    if _evidence_differs(kind, record.candidate_evidence, repeatability.candidate_evidence):
        return [f"the stored limits were found with candidates judged otherwise; measure them again ({MEASURE})"]
    if kind == "automatic" or repeatability.settings is None:
        return []
    if names := _differing(record.decomposition_settings, repeatability.settings, unless=("batch_size",)):
        return [f"the stored limits were found with other settings ({names}); measure them again ({MEASURE})"]
    return []


def _differing(
    first: Mapping[str, object] | None,
    second: Mapping[str, object] | None,
    unless: tuple[str, ...] = (),
    shared: bool = False,
) -> str:
    """Return the names of values that differ. shared: Only names that both have; a heart mask needs no network."""
    first, second = first or {}, second or {}
    names = first.keys() & second.keys() if shared else first.keys() | second.keys()
    return ", ".join(sorted(n for n in names - set(unless) if first.get(n) != second.get(n)))


def _scan_warnings(pair: Pair, repeatability: Repeatability | None) -> Iterator[ScanWarning]:
    checked = {"kernel": "kernel", "kvp": "tube voltage", "slice_thickness_mm": "slice thickness"}
    unknown = [title for name, title in checked.items() if not _pair_of_facts(name, pair)]
    agreeing, differing = _compared_identity(*(record.acquisition for record in pair))
    if not ("patient_id" in agreeing | differing or {"patient_name", "patient_birth_date"} <= agreeing):
        unknown.append("patient ID")
    if unknown:
        names = abbreviated_list(unknown)
        message = f"These properties are not known for both scans and were not compared: {names}."
        yield ScanWarning("comparison-unchecked", message)
    scanner, later_scanner = _pair_of_facts("scanner_model", pair) or (None, None)
    if scanner != later_scanner:
        message = f"The scans come from different scanners ({scanner} and {later_scanner})."
        yield ScanWarning("comparison-scanners", message)
    noise = _pair_of_facts("noise_hu", pair)
    if noise and NOISE_RATIO <= _ratio(*noise) < OTHER_NOISE_RATIO:
        message = f"The noise differs ({noise[0]:.0f} and {noise[1]:.0f} HU): faint lesions show in one scan only."
        yield ScanWarning("comparison-noise", message)
    for name, (low, high) in (repeatability.acquisition if repeatability else {}).items():
        values = {value for record in pair if (value := _fact(name, record)) is not None}
        if outside := sorted(value for value in values if not low / 1.05 <= value <= high * 1.05):
            studied = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            message = (
                f"The repeatability limits were determined with {name.replace('_', ' ')} {studied}; here it is "
                f"{' and '.join(f'{v:g}' for v in outside)}."
            )
            yield ScanWarning("comparison-beyond-study", message)


def _method_warnings(pair: Pair) -> Iterator[ScanWarning]:
    heart, later_heart = (record.heart.source for record in pair)
    if heart != later_heart:
        message = f"The hearts were located by different methods ({heart} and {later_heart})."
        yield ScanWarning("comparison-hearts", message)
    statuses = {
        name: [record.methods[name].status for record in pair]
        for name in METHODS
        if all(name in record.methods for record in pair)
    }
    automatic = [name for name, of_both in statuses.items() if of_both == ["automatic", "automatic"]]
    if any(record.methods[name].total.lesions for name in automatic for record in pair):
        message = "The arteries of lesions that nobody reviewed are suggestions: a lesion may have moved between them."
        yield ScanWarning("comparison-arteries-suggested", message)
    of_map = statuses.get("decomposition")
    is_by_reader = of_map == ["reviewed", "reviewed"] or any(record.slices_by_reader for record in pair)
    if of_map is not None and is_by_reader:
        message = (
            "The repeatability limits apply to calcium maps that no reader has changed, but a reader has changed one "
            "of these."
        )
        yield ScanWarning("comparison-map-reviewed", message)


def _facts(record: ScoreRecord, identify: bool) -> dict[str, object]:
    """Return facts shown beside a scan's scores; identify: the study date, which identifies a person, too."""
    names = ("kvp", "kernel", "slice_thickness_mm", "exposure_mas", "gating", "scanner_model", "slice_spacing_mm")
    names = (*PSEUDONYM, *(("study_date",) if identify else ()), *names)
    facts = {name: _fact(name, record) for name in (*names, "noise_hu")}
    source = {"name": record.input.name, "voxels_sha256": record.input.voxels_sha256}
    return {**source, **facts, "models": [asdict(model) for model in record.models]}
