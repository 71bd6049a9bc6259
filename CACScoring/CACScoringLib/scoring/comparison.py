"""Two results of one patient: has the calcium changed by more than two scans differ when nothing has changed?

What repeats is told by the limits that a scan-rescan study stored with the model (`repeatability`). Where none hold,
scores have changed if their intervals (`uncertainty`) do not overlap. Where two results cannot be compared, or neither
limits nor intervals are known, there is no verdict but the reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..core.ct import CTError, ScanWarning, UnreadableError
from ..core.labels import MAIN_ARTERIES
from ..core.output import LAST_FILE
from ..core.output import SCHEMA as SCORE_SCHEMA
from ..core.records import check_record, recorded_status
from .acquisition import NO_AGENT
from .repeatability import Limits, Repeatability, models_of
from .uncertainty import CalibratedOn

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
"""What a verdict is based on."""

METHODS = ("threshold", "decomposition")
QUANTITIES = ("agatston", "pseudo_mass_hu_mm3")
TOTAL = "total"
ARTERIES = tuple(artery.key for artery in MAIN_ARTERIES)

SAME_KVP = 0.5
SAME_RATIO = 1.25
"""Slice thickness and spacing of comparable scans differ by less than this factor."""

NOISE_RATIO = 1.5
"""Noise that differs by this factor is worth a warning."""

OTHER_NOISE_RATIO = 2.0
"""Noise that differs by this factor, as from a quarter of the dose or a sharp kernel, makes scans incomparable."""

_SIDES = ("earlier", "later")


@dataclass(frozen=True)
class Change:
    """One number of both results. part: "total" or an artery's key.

    limit: what repeats at this level, None where no limits reach. verdict: key of VERDICTS. reason: why there is none.
    intervals: of both scores, lowest and highest; None where those of one are unknown.
    """

    quantity: str
    part: str
    earlier: float
    later: float
    limit: float | None
    verdict: str
    reason: str | None = None
    intervals: tuple[tuple[float, float], tuple[float, float]] | None = None

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
    def text(self) -> str:
        """The verdict in words."""
        if self.based_on == BY_INTERVALS:
            return INTERVAL_VERDICTS[self.verdict]
        return VERDICTS[self.verdict] + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class MethodComparison:
    """bars: why nothing can be said by this method at all. changes: none where one result lacks the method.

    scaled: whether its Agatston scores are on the scale of clinical ones (`MethodResult.scaled_agatston`). status: of
    both scores (`results.STATUSES`), None where it differs. no_limits: where intervals tell what has changed, why no
    limits do. calibrated_on: whose errors the intervals are made of; None for digital patients.
    """

    method: str
    bars: tuple[str, ...]
    changes: tuple[Change, ...]
    scaled: bool = False
    status: str | None = None
    no_limits: tuple[str, ...] = ()
    calibrated_on: CalibratedOn | None = None


@dataclass(frozen=True)
class Comparison:
    """earlier, later: what the scans are called, and the facts that were compared. warnings: doubts."""

    earlier: dict[str, object]
    later: dict[str, object]
    methods: tuple[MethodComparison, ...]
    warnings: tuple[ScanWarning, ...]
    repeatability: Repeatability | None


def read_result(path: Path) -> dict:
    """The content of a result's `scores.json`.

    Args:
        path: The folder that `cac score` wrote, or the file.

    Raises:
        UnreadableError: It is missing or cannot be read.
        CTError: The input cannot be used.
    """
    file = path / LAST_FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} holds no readable result ({error}). Give a results folder of cac score."
        raise UnreadableError(message) from error
    if not isinstance(content, dict) or content.get("schema") != SCORE_SCHEMA:
        raise CTError(f"{file} is not of schema {SCORE_SCHEMA}. Score the scan again with this version.")
    check_record(content, str(file))
    return content


def is_result(path: Path) -> bool:
    """Whether a path is a result rather than a CT."""
    return path.name == LAST_FILE or (path / LAST_FILE).is_file()


def compare(earlier: dict, later: dict, repeatability: Repeatability | None) -> Comparison:
    """Compare two results.

    Args:
        earlier: Contents of `scores.json`; identifying facts in them are compared too, but not kept.
        later: Contents of `scores.json`; identifying facts in them are compared too, but not kept.
        repeatability: Limits of a scan-rescan study; None for none.
    """
    bars = _acquisition_bars(earlier, later)
    methods = []
    for name in METHODS:
        if name in earlier["methods"] or name in later["methods"]:
            methods.append(_method(name, earlier, later, repeatability, bars))
    warnings = (*_scan_warnings(earlier, later, repeatability), *_method_warnings(earlier, later))
    return Comparison(_facts(earlier), _facts(later), tuple(methods), warnings, repeatability)


def comparison_as_json(comparison: Comparison) -> dict:
    """Content of `comparison.json`, and of "comparison" in `scores.json`. Within one schema keys may be added only."""
    return {
        "schema": SCHEMA,
        "earlier": comparison.earlier,
        "later": comparison.later,
        "warnings": [asdict(warning) for warning in comparison.warnings],
        "limits": None if comparison.repeatability is None else _provenance(comparison.repeatability),
        "methods": {
            method.method: {
                "cannot_be_said": list(method.bars),
                "no_limits": list(method.no_limits),
                "scaled_agatston": method.scaled,
                "status": method.status,
                **{
                    quantity: {
                        change.part: {
                            "earlier": change.earlier,
                            "later": change.later,
                            "difference": change.difference,
                            "limit": change.limit,
                            "intervals_90": None if change.intervals is None else [list(i) for i in change.intervals],
                            "based_on": change.based_on,
                            "verdict": change.verdict,
                            "text": change.text,
                        }
                        for change in method.changes
                        if change.quantity == quantity
                    }
                    for quantity in QUANTITIES
                },
            }
            for method in comparison.methods
        },
    }


def _provenance(repeatability: Repeatability) -> dict:
    unsaid = ("limits", "settings", "candidate_evidence")
    return {name: value for name, value in asdict(repeatability).items() if name not in unsaid}


def _method(
    name: str, earlier: dict, later: dict, repeatability: Repeatability | None, acquisition_bars: list[str]
) -> MethodComparison:
    found = [content["methods"].get(name) for content in (earlier, later)]
    if None in found:
        lacking = _SIDES[found.index(None)]
        return MethodComparison(name, (f"the {lacking} scan was not scored by this method",), ())
    statuses = [recorded_status(name, method) for method in found]
    scaled = all("clinical_agatston" in method["total"] for method in found)
    limits = "automatic" if name == "threshold" and statuses == ["automatic", "automatic"] else name
    bars = [*acquisition_bars, *_status_bars(statuses), *_rule_bars(name, earlier, later)]
    if limits != "threshold":
        bars += _model_bars(limits, earlier, later)
    no_limits = []
    if repeatability is None:
        no_limits = ["no repeatability limits are stored with the model"]
    elif limits != "threshold":
        no_limits = _limit_bars(limits, earlier, repeatability)
    changes = []
    for quantity in QUANTITIES:
        own_bars = [*bars, *(() if scaled or name == "threshold" or quantity != "agatston" else (_NOT_SCALED,))]
        for part in (TOTAL, *ARTERIES):
            before, after = (_value(method, scaled, quantity, part) for method in found)
            intervals = _intervals(found, part) if quantity == "agatston" else None
            change = Change(quantity, part, before, after, None, UNKNOWN, own_bars[0] if own_bars else None, intervals)
            if not own_bars:
                change = _evaluated(change, _limits_of(change, limits, repeatability, no_limits))
            changes.append(change)
    status = statuses[0] if statuses[0] == statuses[1] else None
    if not any(change.based_on == BY_INTERVALS for change in changes):
        bars, no_limits = [*bars, *no_limits], []
    shown = (scaled and name == "decomposition", status, tuple(no_limits), CalibratedOn.stored(later))
    return MethodComparison(name, tuple(bars), tuple(changes), *shown)


_NOT_SCALED = "one result is of an earlier version, whose map's Agatston scores are not on the clinical scale"


def _value(method: dict, scaled: bool, quantity: str, part: str) -> float:
    score = method["total"] if part == TOTAL else method["arteries"][part]
    return score["clinical_agatston" if scaled and quantity == "agatston" else quantity]


def _intervals(found: list[dict], part: str) -> tuple[tuple[float, float], tuple[float, float]] | None:
    scores = [method["total"] if part == TOTAL else method["arteries"][part] for method in found]
    first, second = (score.get("interval_90") for score in scores)
    return None if first is None or second is None else ((first[0], first[1]), (second[0], second[1]))


def _evaluated(change: Change, limits: Limits | str) -> Change:
    """The change with its verdict. limits: those that hold, or why none do."""
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


def _limits_of(change: Change, name: str, repeatability: Repeatability | None, no_limits: list[str]) -> Limits | str:
    """The limits that hold for a change, or why none do. name: whose of the stored ones are meant. no_limits: why none
    hold for the method."""
    if repeatability is None or no_limits:
        return no_limits[0]
    parts = repeatability.limits.get(name, {}).get(change.quantity, {})
    stored = parts.get(TOTAL if change.part == TOTAL else "artery")
    if stored is None:
        of = "this score" if change.part == TOTAL else "single arteries"
        return f"no repeatability limits are stored for {of}"
    if (change.earlier + change.later) / 2 > stored.highest:
        return f"the scan-rescan study included no scores this high (up to {stored.highest:,.0f})"
    return stored


def _acquisition_bars(earlier: dict, later: dict) -> list[str]:
    """Why the scans themselves cannot be compared, in words."""
    a, b = earlier["acquisition"], later["acquisition"]
    bars = [
        f"the {title} differ ({a[name]} and {b[name]})"
        for name, title in (("kernel", "kernels"), ("gating", "gating modes"))
        if _known(a, b, name) and str(a[name]).strip().lower() != str(b[name]).strip().lower()
    ]
    if _known(a, b, "kvp") and abs(a["kvp"] - b["kvp"]) > SAME_KVP:
        bars.append(f"the tube voltages differ ({a['kvp']:g} and {b['kvp']:g} kVp)")
    thickness = (a.get("slice_thickness_mm"), b.get("slice_thickness_mm"))
    if None not in thickness and _ratio(*thickness) >= SAME_RATIO:
        bars.append(f"the slice thicknesses differ ({thickness[0]:g} and {thickness[1]:g} mm)")
    spacing = (earlier["input"]["spacing_mm"][2], later["input"]["spacing_mm"][2])
    if _ratio(*spacing) >= SAME_RATIO:
        bars.append(f"the slice spacings differ ({spacing[0]:g} and {spacing[1]:g} mm)")
    noise = _noise(earlier, later)
    if noise and _ratio(*noise) >= OTHER_NOISE_RATIO:
        bars.append(f"the noise differs too much ({noise[0]:.0f} and {noise[1]:.0f} HU)")
    bars += [
        f"the {side} scan was acquired with contrast"
        for side, content in zip(_SIDES, (earlier, later), strict=True)
        if "contrast-enhanced" in _codes(content)
    ]
    agents = [(facts.get("contrast_agent") or "").strip().lower() not in NO_AGENT for facts in (a, b)]
    if agents[0] != agents[1]:
        bars.append(f"only the {_SIDES[agents.index(True)]} scan's DICOM tag names a contrast agent")
    if _known(a, b, "patient_id") and a["patient_id"] != b["patient_id"]:
        bars.append("the scans name different patients")
    elif _known(a, b, "patient_sex") and a["patient_sex"] != b["patient_sex"]:
        bars.append("the scans are of a man and a woman")
    return bars


def _status_bars(statuses: list[str]) -> list[str]:
    if statuses.count("reviewed") == 1:
        return [f"only the {_SIDES[statuses.index('reviewed')]} scan's lesions were reviewed"]
    if statuses.count("candidates") == 1:
        side = _SIDES[statuses.index("candidates")]
        return [f"the {side} scan's candidates were not evaluated, so they are not a calcium score"]
    if "candidates" in statuses:
        return ["the candidates have not been reviewed, so they are not a calcium score"]
    return []


def _rule_bars(name: str, earlier: dict, later: dict) -> list[str]:
    # A calibration changes the mass in mg only, which is not compared; a name tells nothing else than the values.
    rules = [
        {**content["rules"][name], "name": None, "calibration_mg_per_mm3_hu": None} for content in (earlier, later)
    ]
    return [f"the rules differ ({names})"] if (names := _differing(*rules)) else []


def _model_bars(limits: str, earlier: dict, later: dict) -> list[str]:
    if names := _differing(*_shared(models_of(earlier), models_of(later))):
        return [f"the models differ ({names}): score both with the same"]
    if limits == "automatic" and earlier.get("candidate_evidence") != later.get("candidate_evidence"):
        return ["the candidates were evaluated by different evidence"]
    if earlier.get("calibrated_on") != later.get("calibrated_on"):
        return ["the models were calibrated on different scans"]
    settings = [{**content["decomposition_settings"], "batch_size": None} for content in (earlier, later)]
    return [f"the calcium maps were made with other settings ({names})"] if (names := _differing(*settings)) else []


def _limit_bars(limits: str, content: dict, repeatability: Repeatability) -> list[str]:
    if limits == "automatic" and limits not in repeatability.limits:
        return ["the stored limits are those of a reader, and do not hold for automatic scores"]
    if names := _differing(*_shared(models_of(content), repeatability.models)):
        return [f"the stored limits were found with other models ({names})"]
    if limits == "automatic" and content.get("candidate_evidence") != repeatability.candidate_evidence:
        return ["the stored limits were found with candidates evaluated by different evidence"]
    if repeatability.settings is None:
        return []
    settings = [
        {**values, "batch_size": None} for values in (content["decomposition_settings"], repeatability.settings)
    ]
    return [f"the stored limits were found with other settings ({names})"] if (names := _differing(*settings)) else []


def _shared(first: dict, second: dict) -> tuple[dict, dict]:
    """Both without what only one has: a heart that was given needs no network."""
    names = first.keys() & second.keys()
    return {name: first[name] for name in names}, {name: second[name] for name in names}


def _differing(first: dict, second: dict) -> str:
    return ", ".join(sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n)))


def _scan_warnings(earlier: dict, later: dict, repeatability: Repeatability | None) -> list[ScanWarning]:
    a, b = earlier["acquisition"], later["acquisition"]
    warnings = []
    checked = {"kernel": "kernel", "kvp": "tube voltage", "slice_thickness_mm": "slice thickness"}
    if unknown := [title for name, title in checked.items() if not _known(a, b, name)]:
        message = f"These properties are not known for both scans and were not compared: {', '.join(unknown)}."
        warnings.append(ScanWarning("comparison-unchecked", message))
    if _known(a, b, "scanner_model") and a["scanner_model"] != b["scanner_model"]:
        message = f"The scans come from different scanners ({a['scanner_model']} and {b['scanner_model']})."
        warnings.append(ScanWarning("comparison-scanners", message))
    noise = _noise(earlier, later)
    if noise and NOISE_RATIO <= _ratio(*noise) < OTHER_NOISE_RATIO:
        message = f"The noise differs ({noise[0]:.0f} and {noise[1]:.0f} HU): faint lesions show in one scan only."
        warnings.append(ScanWarning("comparison-noise", message))
    if _known(a, b, "study_date") and str(a["study_date"]) > str(b["study_date"]):
        message = "According to the study dates, the scan given as the later one was acquired first."
        warnings.append(ScanWarning("comparison-order", message))
    for name, (low, high) in (repeatability.acquisition if repeatability else {}).items():
        values = {
            content["input"]["spacing_mm"][2] if name == "slice_spacing_mm" else content["acquisition"].get(name)
            for content in (earlier, later)
        }
        if outside := sorted(v for v in values if v is not None and not low / 1.05 <= v <= high * 1.05):
            shown = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            message = (
                f"The repeatability limits were determined with {name.replace('_', ' ')} {shown}; here it is "
                f"{' and '.join(f'{v:g}' for v in outside)}."
            )
            warnings.append(ScanWarning("comparison-beyond-study", message))
    return warnings


def _method_warnings(earlier: dict, later: dict) -> list[ScanWarning]:
    warnings = []
    hearts = [content["heart"]["source"] for content in (earlier, later)]
    if hearts[0] != hearts[1]:
        message = f"The hearts were located by different methods ({hearts[0]} and {hearts[1]})."
        warnings.append(ScanWarning("comparison-hearts", message))
    pairs = [[content["methods"].get(name) for content in (earlier, later)] for name in METHODS]
    automatic = [
        found
        for name, found in zip(METHODS, pairs, strict=True)
        if None not in found and all(recorded_status(name, method) == "automatic" for method in found)
    ]
    if any(method["total"]["lesions"] for found in automatic for method in found):
        message = "The arteries of lesions that nobody reviewed are suggestions: a lesion may have moved between them."
        warnings.append(ScanWarning("comparison-arteries-suggested", message))
    maps = pairs[METHODS.index("decomposition")]
    if None in maps:
        return warnings
    statuses = [recorded_status("decomposition", found) for found in maps]
    if any(content.get("slices_by_reader") for content in (earlier, later)) or statuses == ["reviewed", "reviewed"]:
        message = (
            "The repeatability limits apply to calcium maps that no reader has changed, but a reader has changed "
            "one of these."
        )
        warnings.append(ScanWarning("comparison-map-reviewed", message))
    return warnings


def _facts(content: dict) -> dict[str, object]:
    """What is told of a scan beside its scores; nothing that identifies a person."""
    acquisition = content["acquisition"]
    names = ("kvp", "kernel", "slice_thickness_mm", "exposure_mas", "gating", "scanner_model")
    return {
        "name": content["input"]["name"],
        **{name: acquisition.get(name) for name in names},
        "slice_spacing_mm": content["input"]["spacing_mm"][2],
        "noise_hu": (content["measured"] or {}).get("noise_hu"),
        "models": content["models"],
    }


def _known(first: dict, second: dict, name: str) -> bool:
    return first.get(name) is not None and second.get(name) is not None


def _noise(earlier: dict, later: dict) -> tuple[float, float] | None:
    """Of both scans, HU; None where one could not be measured."""
    first, second = ((content["measured"] or {}).get("noise_hu") for content in (earlier, later))
    return None if first is None or second is None or min(first, second) <= 0 else (first, second)


def _ratio(first: float, second: float) -> float:
    return max(first, second) / min(first, second)


def _codes(content: dict) -> set[str]:
    return {warning["code"] for warning in content["warnings"]}
