"""Doubts about a score: lesions of middling probability, metal, stents and noise; and lists of lesions by doubt."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.ct import CTScan, ScanWarning
from ..core.labels import Artery, Site
from ..core.text import abbreviated_list
from ..record.findings import BloodPool
from ..record.scores import Lesion, LesionSet, MethodScore, Verdict
from .scores import class_number

if TYPE_CHECKING:
    from ..anatomy.heart_region import HeartRegion

METAL_HU = 2000.0
"""Calcium does not get this dense in a CT of the chest; stents, leads, clips and wires do."""

POSSIBLE_METAL_HU = 1300.0
"""Peak above which a lesion may be metal: of 828 coronary lesions of digital patients 2 exceed it, of 109 clips 52; a
plaque of a patient reached 1592."""

NOISE_REACH_SDS = 5.0
"""Noise SDs above blood that noise alone reaches in one voxel of 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""Candidates of noise that a reader would still reject singly."""


def dense_warning(lesions: Sequence[Lesion]) -> list[ScanWarning]:
    """Warn of lesions that count although they are denser than nearly all calcium; severely above METAL_HU."""
    dense = [lesion for lesion in lesions if lesion.peak_hu > POSSIBLE_METAL_HU]
    if not dense:
        return []
    ids, peak_hu = abbreviated_list(str(lesion.id) for lesion in dense), max(lesion.peak_hu for lesion in dense)
    message = (
        f"{len(dense)} of {len(lesions)} counted lesions peak above {POSSIBLE_METAL_HU:g} HU, as clips, stents "
        f"and wires do and calcium hardly ever does (lesion {ids}; up to {peak_hu:.0f} HU)."
    )
    return [ScanWarning("possible-metal", message, severe=peak_hu > METAL_HU)]


def noise_warnings(method: MethodScore, blood: BloodPool | None) -> Iterator[ScanWarning]:
    """Warn if noise alone explains many and most lesions; severely of those of the arteries.

    A lesion is explained where its peak is no more than NOISE_REACH_SDS above the blood; the doubt is raised where more
    than NOISE_CANDIDATES and more than half of all are. Of 130 HU and blood of 40 HU this can only be from 18 HU of
    noise on. Nothing is said of enhanced blood, which is a candidate itself, or where blood was not measured.

    Args:
        method: Clinical score that nobody has reviewed.
        blood: Blood and noise; None if not measured.
    """
    if blood is None or blood.enhanced:
        return
    reach = blood.median_hu + NOISE_REACH_SDS * blood.noise_hu

    def explained(lesions: Sequence[Lesion], words: str) -> str:
        count, total = sum(lesion.peak_hu <= reach for lesion in lesions), len(lesions)
        if count <= max(NOISE_CANDIDATES, total / 2):
            return ""
        return (
            f"{count} of {total} {words} are no denser than noise alone can be (up to {reach:.0f} HU in blood of "
            f"{blood.median_hu:.0f} HU with noise of {blood.noise_hu:.0f} HU), so their total proves no calcium."
        )

    if message := explained(method.lesions, "candidates"):
        advice = "Reconstruct the scan with a softer kernel or thicker slices."
        yield ScanWarning("noise-candidates", f"{message} {advice}")
    if message := explained(method.outside, "lesions outside the coronary arteries"):
        yield ScanWarning("noise-elsewhere", message)


MAX_ERROR = 0.1
"""Probability of counting wrongly, or of being left out wrongly, above which a lesion is doubtful."""

LARGE_SHARE = 0.2
"""Share of the higher of two totals, with a doubtful lesion and without, that makes it decisive."""


def doubtful_lesions(method: MethodScore) -> list[Lesion]:
    """Return the lesions of an automatic score that may count wrongly, or be left out wrongly, and possible stents."""
    if method.status != "automatic":
        return []
    return [
        lesion
        for lesion in method.listed  # some have no verdict
        if lesion.verdict is not None
        and (may_be_wrong(lesion.verdict) or (lesion.verdict.is_stent and lesion.verdict.counts))
    ]


def may_be_wrong(verdict: Verdict) -> bool:
    """True if a lesion may count wrongly, or be left out wrongly."""
    return probability_of_error(verdict) > MAX_ERROR


def probability_of_error(verdict: Verdict) -> float:
    """Return the probability that a lesion counts wrongly, or is left out wrongly."""
    return verdict.not_coronary_probability if verdict.counts else verdict.probability


def impact(method: MethodScore, lesion: Lesion) -> float:
    """Return the expected change of a total by a reader's decision about a lesion, in Agatston units.

    It is infinite for the lesion that decides an automatic score. Candidates are expected to be added.
    """
    if method.alternative_lesion == lesion.id:
        return math.inf
    is_automatic = method.status == "automatic"
    if lesion.verdict is None:  # far from all arteries, or without networks
        return 0.0 if is_automatic or not isinstance(lesion.site, Artery) else lesion.agatston
    return lesion.agatston * (probability_of_error(lesion.verdict) if is_automatic else lesion.verdict.probability)


def total_otherwise(method: MethodScore, lesion: Lesion, verdict: Verdict) -> float:
    """Return the total Agatston score without a lesion if it counts, else with it."""
    total = method.total.agatston
    return max(total - lesion.agatston if verdict.counts else total + lesion.agatston, 0.0)


def decisive_lesions(method: MethodScore, decided: Collection[int] = ()) -> list[tuple[Lesion, float]]:
    """Return the doubtful lesions that alone change the risk class of an automatic clinical score, or a fifth of it.

    Args:
        method: The score.
        decided: IDs of lesions that a reader has decided about.

    Returns:
        Each with the total Agatston score without it if it counts, else with it; the largest lesion first.
    """
    if method.is_map:
        return []
    total = method.total.agatston
    decisive = []
    for lesion in doubtful_lesions(method):
        assert lesion.verdict is not None
        if lesion.id in decided or not may_be_wrong(lesion.verdict):
            continue  # such as a possible stent that certainly lies in an artery
        alternative = total_otherwise(method, lesion, lesion.verdict)
        changes_class = class_number(alternative) != class_number(total)
        if changes_class or lesion.agatston > LARGE_SHARE * max(total, alternative):
            decisive.append((lesion, alternative))
    return sorted(decisive, key=lambda pair: -pair[0].agatston)


def decisive_warning(method: MethodScore) -> list[ScanWarning]:
    """Warn of doubtful lesions that decide a score, alone or together."""
    decisive = decisive_lesions(method)
    if not decisive:
        return []
    lesion, alternative = decisive[0]
    assert lesion.verdict is not None
    subject = "One doubtful lesion decides" if len(decisive) == 1 else f"{len(decisive)} doubtful lesions decide"
    word = "without" if lesion.verdict.counts else "with"
    message = (
        f"{subject}: {method.total.agatston:.0f}, or {alternative:.0f} {word} lesion {lesion.id} "
        f"({lesion.verdict.artery.key}, slices {lesion.slice_range}, Agatston score {lesion.agatston:.0f}, probability "
        f"{lesion.verdict.probability:.2f})."
    )
    return [ScanWarning("doubt-decides", message)]


def possible_stents(method: MethodScore, decided: Collection[int] = ()) -> list[Lesion]:
    """Return the lesions that count although they look like a stent, the largest first.

    decided: IDs of lesions that a reader has decided about.
    """
    stents = (lesion for lesion in method.lesions if lesion.verdict is not None and lesion.verdict.is_stent)
    return sorted((lesion for lesion in stents if lesion.id not in decided), key=lambda lesion: -lesion.agatston)


def total_without_stents(method: MethodScore, decided: Collection[int] = ()) -> float | None:
    """Return the total Agatston score without possible stents if they make the class of an automatic one, else None.

    decided: IDs of lesions that a reader has decided about.
    """
    total, stents = method.total.agatston, possible_stents(method, decided)
    alternative = max(total - sum(lesion.agatston for lesion in stents), 0.0)
    makes_class = method.status == "automatic" and class_number(alternative) != class_number(total)
    return alternative if makes_class else None


def stent_warning(method: MethodScore) -> list[ScanWarning]:
    """Warn of lesions that count although they look like a stent."""
    stents, alternative = possible_stents(method), total_without_stents(method)
    if not stents:
        return []
    consequence = "the interval takes them for calcium."
    if alternative is not None:
        consequence = f"without them the score is {alternative:.0f}, and interval and category are withheld."
    count, counted, verb = len(stents), len(method.lesions), "looks" if len(stents) == 1 else "look"
    arteries = ", ".join(dict.fromkeys(lesion.site.key for lesion in stents))
    numbers = abbreviated_list(str(lesion.id) for lesion in stents)
    message = (
        f"{count} of {counted} counted lesions ({arteries}; lesion {numbers}) {verb} like a stent or a heavily "
        f"calcified artery. Reject stents; {consequence}"
    )
    return [ScanWarning("possible-stent", message)]


def outside_warning(lesions: LesionSet, heart: np.ndarray) -> list[ScanWarning]:
    """Warn of labelled lesions that extend beyond the heart. heart: Mask on the scan's grid, bool [k, j, i]."""
    voxels = lesions.voxels
    beyond = np.unique(voxels.ids[~heart[np.unravel_index(voxels.flat, voxels.shape)]])
    if not (count := len(beyond)):
        return []
    message = (
        f"{count} labelled lesion(s) extend beyond the heart region. The clinical rule scores them as labelled, but "
        "the calcium map covers the heart only. Give a heart mask if the heart outline is wrong."
    )
    return [ScanWarning("label-outside-heart", message)]


def doubts_about(
    method: MethodScore, of_reader: tuple[type[Site], ...], region: HeartRegion, blood: BloodPool | None
) -> list[ScanWarning]:
    """Return the doubts about the lesions of a clinical score, which a reader should look at.

    Args:
        method: The score.
        of_reader: Kinds of sites (Artery, NonCoronary) that a reader has labelled.
        region: Heart and territories.
        blood: Blood and noise; None if not measured.
    """
    if of_reader:
        labelled = [lesion for lesion in method.listed if isinstance(lesion.site, of_reader)]
        doubts = [*outside_warning(method.lesion_set, region.mask), *dense_warning(labelled)]
    else:
        doubts = [*dense_warning(method.lesions), *noise_warnings(method, blood)]
    if method.status in ("automatic", "candidates"):
        doubts += [*stent_warning(method), *decisive_warning(method)]
        doubts.append(_unreviewed_warning(method, region.territories is not None))
    return doubts


def _unreviewed_warning(method: MethodScore, has_territories: bool) -> ScanWarning:
    """Return the doubt about a clinical score that nobody has reviewed."""
    if method.status == "automatic":
        count, excluded = len(method.lesions), len(method.left_out)
        if not count + excluded:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the lesion network counts {count} of {count + excluded} candidates. "
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where excluded ones are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "these labels."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with these labels."
    )
    return ScanWarning("unreviewed", message)


MAX_LISTED = 50
"""Unreviewed candidates listed one by one, those that are largest and most probably coronary first. A patient has some
dozen; more are noise, and the report would take many megabytes."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so of a candidate instead of naming an artery."""


def left_out_candidates(method: MethodScore) -> list[tuple[Lesion, Verdict]]:
    """Return the candidates that the automatic clinical score leaves out, by `doubt.impact`."""
    judged = [(lesion, lesion.verdict) for lesion in method.left_out if lesion.verdict is not None]
    return sorted(judged, key=lambda pair: -impact(method, pair[0]))


def listed_lesions(method: MethodScore) -> tuple[Lesion, ...]:
    """Return the lesions that a report lists one by one, in their order.

    All reviewed lesions, else at most MAX_LISTED: those with the highest Agatston score times probability of being
    coronary.
    """
    if method.reviewed or len(method.lesions) <= MAX_LISTED:
        return method.lesions

    def weight(lesion: Lesion) -> float:
        return lesion.agatston * (1 if lesion.verdict is None else lesion.verdict.probability)

    ids = {lesion.id for lesion in sorted(method.lesions, key=weight, reverse=True)[:MAX_LISTED]}
    return tuple(lesion for lesion in method.lesions if lesion.id in ids)


def by_impact(method: MethodScore) -> list[Lesion]:
    """Return the lesions that a report lists, by `impact` if the score is automatic."""
    is_automatic = method.status == "automatic"
    return sorted(listed_lesions(method), key=lambda lesion: -impact(method, lesion) if is_automatic else 0.0)


def probability_of(method: MethodScore, lesion: Lesion) -> float | None:
    """Return the probability that a counted lesion of an automatic score is coronary calcium; None of other scores."""
    return None if method.status != "automatic" or lesion.verdict is None else lesion.verdict.probability


def is_doubtful(method: MethodScore, lesion: Lesion) -> bool:
    """True if a counted lesion is doubtful (`doubt.MAX_ERROR`)."""
    probability = probability_of(method, lesion)
    return probability is not None and round(1 - probability, 2) > MAX_ERROR


def number_of(method: MethodScore, lesion: Lesion) -> str:
    """Return the number of a lesion, with a star if it is doubtful."""
    return f"{lesion.id}*" if is_doubtful(method, lesion) else str(lesion.id)


def probability_text(method: MethodScore, lesion: Lesion) -> str:
    """Return "probability 71 %" of a counted lesion; empty if unknown."""
    probability = probability_of(method, lesion)
    return "" if probability is None else f"probability {at_most_99_percent(probability)}"


def doubtful_text(method: MethodScore, artery: Artery | None = None) -> str:
    """Return "13 of 84 doubtful" of an artery, or of all lesions; empty if none is doubtful."""
    lesions = [lesion for lesion in method.lesions if artery in (None, lesion.site)]
    count = sum(is_doubtful(method, lesion) for lesion in lesions)
    return f"{count} of {len(lesions)} doubtful" if count else ""


def lesion_name(method: MethodScore, lesion: Lesion) -> str:
    """Name the lesion's artery: for one that nobody has reviewed, the likeliest, or both likely ones.

    The percentage is the probability of that artery if the lesion is coronary calcium. A lesion that an automatic score
    counts is never called "not coronary?".
    """
    verdict = lesion.verdict
    if verdict is None or verdict.artery == Artery.UNASSIGNED:
        return lesion.site.key
    if method.status == "candidates" and verdict.not_coronary_probability > PROBABLY:
        return f"not coronary? ({at_most_99_percent(verdict.not_coronary_probability)})"
    return f"{verdict.arteries} ({at_most_99_percent(verdict.confidence)})"


def place_of(scan: CTScan, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = scan.image.GetSize()
    z = scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"


def at_most_99_percent(probability: float) -> str:
    """Return a probability as a percentage, capped because it is never certain."""
    return f"{min(probability, 0.99):.0%}"
