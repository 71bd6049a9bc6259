"""Self-contained HTML reports, from templates that escape all text."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

from .. import results
from ..core import files, labels, text
from ..core.errors import OutputError
from ..core.files import resource_folder
from ..core.labels import MAIN_ARTERIES, SITE_COLOURS, Artery, NonCoronary
from ..core.text import percent
from ..record import columns
from ..record.findings import LesionFeatures
from ..record.scores import Lesion, MethodScore, NonCoronaryScore
from ..results import CalciumResult
from ..scoring import doubt, scores
from ..scoring.doubt import (
    lesion_name,
    listed_lesions,
    place_of,
)
from ..scoring.uncertainty import CATEGORIES, LIMITS
from . import headline, pictures
from .first_pictures import largest_pictures

if TYPE_CHECKING:
    import jinja2

    from ..scoring.comparison import Comparison

SEVERE_STENOSIS_LIMITS = {"F": (800, 1200, 1600), "M": (1600, 2000, 3000)}
"""Agatston scores of the aortic valve by sex. Severe aortic stenosis is unlikely below the first, likely from the
second, and very likely from the third (Vahanian, Eur Heart J 2022;43:561, after Clavel, J Am Coll Cardiol
2013;62:2329)."""

Row = tuple[object, ...]
"""Cells of a row."""

_HIGHEST = 4000.0
"""Highest score of an interval bar."""
_BANDS = ("#e3f0e6", "#fbf3d3", "#fbe0c4", "#f6cfcf")
"""Colours of the categories."""


def result_as_html(
    result: CalciumResult, identify: bool = False, comparison: Comparison | None = None, reader: str | None = None
) -> str:
    """Return a self-contained page: headline, table, largest lesions and warnings; then collapsed sections.

    Args:
        result: Result of a scan.
        identify: Show the patient's identity.
        comparison: Comparison with an earlier result of the patient, shown in a section.
        reader: Name of the reader who reviewed the result; None for who confirmed it.
    """
    parts = dict[str, object]()
    if comparison is not None:
        from . import comparison as comparison_page

        parts |= vars(comparison_page)
    if result.estimates:
        from ..whole_scan import estimates

        parts |= vars(estimates)
    return rendered(
        "score.html",
        f"Coronary calcium: {result.scan.name or 'CT'}",
        **parts,
        **_glance(result, reader),
        result=result,
        facts=_facts(result, identify),
        provenance=provenance_text(result, identify),
        comparison=comparison,
    )


def provenance_text(result: CalciumResult, identify: bool) -> str:
    """Return in one line how a result was made; empty if that is unknown. identify: Keep folders of paths."""
    provenance, review = result.record.provenance, result.record.review
    confirmed = "" if review is None else f" {review.in_words}"
    if provenance is None:
        return confirmed.strip()
    return f"{provenance.in_words(identify)} SHA-256 of the voxels {result.record.input.voxels_sha256}.{confirmed}"


def result_as_fragment(result: CalciumResult) -> str:
    """Headline, severe warnings, table and largest lesions as HTML for a notebook's cell. Raises OutputError."""
    return rendered("notebook.html", "", **_glance(result, None))


def _glance(result: CalciumResult, reader: str | None) -> dict[str, object]:
    """Return the content of the page's first screen."""
    record = result.record
    confirmation = None if record.review is None else record.review.confirmation
    return {
        "head": headline.headline(record.methods, record.categories, record.warnings, reader, confirmation),
        "table": headline.score_table(record.methods, record.truth),
        "warning_lines": headline.warning_lines(result.warnings, result.methods),
        "largest": largest_pictures(result),
    }


def severe_stenosis(agatston: float, sex: str) -> str:
    """Return the likelihood of severe aortic stenosis by the published limits. sex: "F" or "M"."""
    passed = sum(agatston >= limit for limit in SEVERE_STENOSIS_LIMITS[sex])
    return ("unlikely", "undetermined", "likely", "very likely")[passed]


def stenosis(elsewhere: NonCoronaryScore, sex: str | None) -> list[Row]:
    """Return the reviewed score of the aortic valve and the published limits, for the patient's sex if known.

    Without a review there are none: everything dense near the valve counts, its root and prostheses included.
    """
    valve = elsewhere.scores[NonCoronary.AORTIC_VALVE]
    return [
        ({"F": "women", "M": "men"}[key], *limits, f"{valve.agatston:.0f}: {severe_stenosis(valve.agatston, key)}")
        for key, limits in SEVERE_STENOSIS_LIMITS.items()
        if elsewhere.reviewed and valve.lesions and (sex not in SEVERE_STENOSIS_LIMITS or sex == key)
    ]


def components(result: CalciumResult, method: MethodScore) -> list[Row]:
    """Return the Agatston score of each listed lesion in each slice, and the sum of unlisted lesions."""
    listed = listed_lesions(method)
    rows: list[Row] = []
    for lesion in listed:
        for c in lesion.components:
            name, place = lesion_name(method, lesion), place_of(result.scan, c.slice)
            area, peak = f"{c.area_mm2:.2f}", f"{c.peak_hu:g}"
            rows.append((lesion.id, name, place, c.voxels, area, peak, c.weight, f"{c.agatston:.2f}"))
    ids = {lesion.id for lesion in listed}
    unlisted = [lesion for lesion in method.lesions if lesion.id not in ids]
    if unlisted:
        parts = [c for lesion in unlisted for c in lesion.components]
        points = f"{sum(c.agatston for c in parts):.2f}"
        voxels, area = sum(c.voxels for c in parts), f"{sum(c.area_mm2 for c in parts):.2f}"
        rows.append((f"{len(unlisted)} others", "", "", voxels, area, "", "", points))
    return rows


def largest_slice(result: CalciumResult, lesion: Lesion) -> str:
    """Name the slice with most of a lesion."""
    return place_of(result.scan, max(lesion.components, key=lambda c: c.area_mm2).slice)


def _facts(result: CalciumResult, identify: bool) -> dict[str, object]:
    image, record = result.scan.image, result.record
    familiarity = record.familiarity
    facts: dict[str, object] = {
        "voxels": " × ".join(map(str, image.GetSize())),
        "spacing_mm": " × ".join(f"{s:.3f}" for s in image.GetSpacing()),
        **record.acquisition.facts(identify),
        "heart_region": result.region.source,
    }
    if record.measured is not None:
        facts |= {f"blood_{key}": f"{value:.3g}" for key, value in asdict(record.measured).items()}
    if record.normalisation is not None:
        facts["normalisation"] = record.normalisation.in_words
    if familiarity is not None:
        note = f" (distance {familiarity.distance:.2g}, limit {familiarity.limit:g})"
        facts["unlike_the_calibration_scans"] = "; ".join(familiarity.causes) + note if familiarity.distance else "no"
    return facts


def rendered(template: str, title: str, **content: object) -> str:
    """Return a page. template: File name. content: Variables of the template. Raises OutputError."""
    return _environment().get_template(template).render(title=title, **content)


@cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ModuleNotFoundError as error:  # as in Slicer before the networks' packages are installed
        raise OutputError("Reports need the package jinja2. Install it (pip install jinja2), and try again.") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_folder("Report")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for module in (files, labels, text, columns, results, scores, doubt, headline, pictures):
        environment.globals |= vars(module)
    environment.globals |= globals()
    environment.filters.update(
        colour=SITE_COLOURS.__getitem__,
        data_uri=lambda jpeg: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
        general="{:g}".format,
        number=lambda value, digits=0: "–" if value is None else f"{value:.{digits}f}",
        percent=percent,
    )
    environment.tests["coronary"] = lambda site: isinstance(site, Artery)
    return environment


def interval_bar(score: float, low: float, high: float, ink: str = "currentColor") -> str:
    """Return an SVG of a score and its interval on the categories. ink: Colour of the numbers."""
    categories = ", ".join(CATEGORIES).replace("-", "–")
    title = f"Agatston {score:.0f}, 90 % interval {headline.range_text(low, high)}, on categories {categories}"
    bounds = (0.0, *LIMITS, _HIGHEST)
    bands = zip(bounds, bounds[1:], _BANDS, strict=False)
    return rendered("interval_bar.svg", title, score=score, low=low, high=high, bands=bands, ink=ink, x_of=_x_of)


def _x_of(score: float) -> float:
    return 14 + 432 * math.log1p(min(score, _HIGHEST)) / math.log1p(_HIGHEST)


def artery_strips(method: MethodScore) -> str:
    """Return an SVG of the arteries with calcium whose course is known, on one scale in mm; empty without any.

    The proximal third is dark. A lesion is as long as in the scan, and the taller the denser.
    """
    features = method.features
    if features is None:
        return ""
    sites = {lesion.id: lesion.site for lesion in method.lesions}
    placed = [lesion for lesion in features.lesions if lesion.ostium_mm is not None]
    by_artery = {a: f for a in MAIN_ARTERIES if (f := features.arteries.get(a.key)) and f.last_mm is not None}
    strips = [(a, f, [lesion for lesion in placed if sites[lesion.id] == a]) for a, f in by_artery.items()]
    ends = [end for _, f, lesions in strips for end in (f.last_mm or 0.0, *(_ends_mm(x)[1] for x in lesions))]
    if not strips:
        return ""
    scores = {lesion.id: lesion.clinical_agatston for lesion in method.lesions}
    numbered = {lesion.id for *_, lesions in strips for lesion in _numbered(lesions, scores, NUMBER_SHARE * max(ends))}
    return rendered("artery_strips.svg", "", strips=strips, end_mm=max(ends), ends_mm=_ends_mm, numbered=numbered)


NUMBER_SHARE = 0.027
"""Room for a lesion's number, as a share of the strips' length."""


def _numbered(lesions: list[LesionFeatures], scores: dict[int, float], room_mm: float) -> list[LesionFeatures]:
    """Return the lesions of one artery whose numbers have room, those of the highest scores first."""
    numbered: list[LesionFeatures] = []
    for lesion in sorted(lesions, key=lambda lesion: -scores[lesion.id]):
        if all(abs((lesion.ostium_mm or 0.0) - (placed.ostium_mm or 0.0)) >= room_mm for placed in numbered):
            numbered.append(lesion)
    return numbered


def _ends_mm(lesion: LesionFeatures) -> tuple[float, float]:
    middle_mm, length_mm = lesion.ostium_mm or 0.0, lesion.length_mm or 0.0
    return max(0.0, middle_mm - length_mm / 2), middle_mm + length_mm / 2
