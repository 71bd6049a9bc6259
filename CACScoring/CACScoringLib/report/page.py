"""Self-contained HTML reports, from templates that escape all text, and the pictures that come first."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .. import results
from ..anatomy.courses import Course, artery_courses
from ..core import files, labels, text
from ..core.categories import CATEGORIES, LIMITS
from ..core.errors import OutputError
from ..core.files import read_file, resource_folder
from ..core.labels import MAIN_ARTERIES, SITE_COLOURS, TERRITORIES, Artery, NonCoronary
from ..core.text import percent
from ..record import columns
from ..record.findings import LesionFeatures
from ..record.provenance import provenance_of
from ..record.scores import Lesion, MethodScore, NonCoronaryScore
from ..results import ScoreResult
from ..scoring import doubt, scores
from ..scoring.doubt import (
    lesion_name,
    listed_lesions,
    number_of,
    place_of,
    probability_text,
)
from . import headline, pictures
from .pictures import (
    TERRITORY_OPACITY,
    Picture,
    as_jpeg,
    draw_outline,
    enlarged,
    left_out_pictures,
    overview_pictures,
    plane_pictures,
    pointed_at,
)
from .template_cache import template_cache

if TYPE_CHECKING:
    import jinja2

    from ..record.scores import Lesion, LesionSet, MethodScore
    from ..results import ScoreResult
    from ..scoring.comparison import Comparison


MAX_LARGEST = 4
"""Number of lesions pictured on the first screen of a report."""

PART_MM, MAX_PARTS, TILES_ABREAST = 12.0, 8, 4
"""Length of a part of a course, the largest number of parts, and the pictures in a row."""

MAX_COMPARED = 3
"""Number of pictures of a scan in a comparison."""

_FIGURE = re.compile(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"><figcaption>([^<]*)</figcaption>')

WIDTH_MM = 45.0
"""Width of the picture of a part."""


def largest_pictures(result: ScoreResult) -> list[Picture]:
    """Draw the largest lesions, each with an arrow in the slice that holds most of it; one that decides comes first.

    Without lesions, so that a score of 0 can be checked: the arteries along their courses, or without them the heart in
    three planes; and the candidate left out that would probably add most to the score, or the overview from the front
    if none was left out.
    """
    method = result.methods["threshold"]
    first = _decisive(method)
    by_score = sorted(method.lesions, key=lambda lesion: -lesion.agatston)
    largest = [(method.lesion_set, lesion) for lesion in by_score if lesion.id != method.alternative_lesion]
    drawn: list[Picture] = []
    for lesion_set, lesion in (*first, *largest)[:MAX_LARGEST]:
        k, jpeg = pointed_at(result, lesion_set, lesion)
        name = lesion_name(method, lesion) if lesion.site == Artery.UNASSIGNED else lesion.site.key
        place = (f"{lesion.peak_hu:,.0f} HU", f"slice {k}", *filter(None, [probability_text(method, lesion)]))
        title = f"{number_of(method, lesion)} {name} · Agatston {lesion.agatston:,.0f}"
        decides = ("Decides: counts, but is doubtful" if lesion.id in method.lesion_set.ids else "Decides: left out",)
        drawn.append(Picture(jpeg, " · ".join((*(decides if first and not drawn else ()), title, *place))))
    if not method.lesions:
        places = course_pictures(result) or plane_pictures(result)
        drawn += [*places, (*left_out_pictures(result, 1), *overview_pictures(result, method))[0]]
    return drawn


def pictures_of_report(result: Path) -> list[Picture]:
    """Read pictures from a result's `report.html`: the heart from the front, then the first ones; empty without it.

    result: Folder of the result, or a file in it.
    """
    folder, text = result if result.is_dir() else result.parent, ""
    with suppress(OSError, ValueError):
        text = read_file(folder / "report.html").decode()
    pictures = [Picture(base64.b64decode(jpeg), html.unescape(caption)) for jpeg, caption in _FIGURE.findall(text)]
    from_front = [picture for picture in pictures if picture.caption.endswith("from the front")][-1:]
    return [*from_front, *(picture for picture in pictures if picture not in from_front)][:MAX_COMPARED]


def _decisive(method: MethodScore) -> list[tuple[LesionSet, Lesion]]:
    """Return the lesion that decides a score, in its set; empty without one."""
    sets = (method.lesion_set, method.left_out_set, method.outside_set)
    return [(of, lesion) for of in sets for lesion in of.lesions if lesion.id == method.alternative_lesion]


def course_pictures(result: ScoreResult) -> list[Picture]:
    """Draw each artery in parts from its ostium, each as the maximum over its slices with the territory outlined.

    Empty without territories, or if no ostium is known.
    """
    courses = artery_courses(result.territory_labels, result.scan.image.GetSpacing())
    return [_course_picture(result, artery, course) for artery, course in courses.items()]


def _course_picture(result: ScoreResult, artery: Artery, course: Course) -> Picture:
    assert result.territory_labels is not None
    spacing = np.array(result.scan.image.GetSpacing()[::-1])
    places = np.rint(course.places_mm / spacing).astype(int).clip(0, np.array(result.territory_labels.shape) - 1)
    is_artery = result.territory_labels[tuple(places.T)] == TERRITORIES.index(artery.key)
    in_artery = is_artery & (course.distances_mm <= course.last_mm)
    length_mm = course.last_mm - course.first_mm
    count = min(MAX_PARTS, max(1, round(length_mm / PART_MM)))
    part_of = np.searchsorted(np.linspace(course.first_mm, course.last_mm, count + 1)[1:-1], course.distances_mm)
    parts = [places[in_artery & (part_of == part)] for part in range(count)]
    tiles = [_tile(result.scan.hu, result.territory_labels, part, spacing, artery) for part in parts if len(part)]
    size = tiles[0].width
    sheet = Image.new("RGB", (size * TILES_ABREAST, size * -(-len(tiles) // TILES_ABREAST)))
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (n % TILES_ABREAST * size, n // TILES_ABREAST * size))
    caption = f"{artery.key} from its origin to {length_mm:.0f} mm; in each part the maximum of its slices"
    return Picture(as_jpeg(sheet), caption, wide=True)


def _tile(
    hu: np.ndarray, territories: np.ndarray, places: np.ndarray, spacing: np.ndarray, artery: Artery
) -> Image.Image:
    """Draw the slices of some places of a course as their maximum."""
    slices = slice(int(places[:, 0].min()), int(places[:, 0].max()) + 1)
    middle = (places[:, 1:].min(axis=0) + places[:, 1:].max(axis=0)) // 2
    halves = np.rint(WIDTH_MM / 2 / spacing[1:]).astype(int)
    rows, columns = (
        np.clip(np.arange(at - half, at + half + 1), 0, n - 1)
        for at, half, n in zip(middle.tolist(), halves.tolist(), hu.shape[1:], strict=True)
    )
    area = (slices, rows[:, None], columns)
    highest = hu[area].max(axis=0)
    picture, _ = enlarged(highest, (float(spacing[2]), float(spacing[1])))
    shape = (territories[area] == TERRITORIES.index(artery.key)).any(axis=0)
    draw_outline(picture, shape, SITE_COLOURS[artery], TERRITORY_OPACITY)
    return picture.resize((220, 220))


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


def result_as_html(result: ScoreResult, identify: bool = False, comparison: Comparison | None = None) -> str:
    """Return a self-contained page: headline, table, largest lesions and warnings; then collapsed sections.

    Args:
        result: Result of a scan.
        identify: Show the patient's identity.
        comparison: Comparison with an earlier result of the patient, shown in a section.
    """
    parts = dict[str, object]()
    if comparison is not None:
        from . import comparison as texts

        parts |= vars(texts)
    if result.estimates:
        from ..whole_scan import estimates

        parts |= vars(estimates)
    return rendered(
        "score.html",
        f"Coronary calcium: {result.scan.name or 'CT'}",
        **parts,
        **_glance(result),
        result=result,
        facts=_facts(result, identify),
        provenance=provenance_text(result, identify),
        comparison=comparison,
    )


def provenance_text(result: ScoreResult, identify: bool) -> str:
    """Return in one line how a result was made; empty if that is unknown. identify: Keep folders of paths."""
    provenance, review = result.record.provenance, result.record.review
    confirmed = "" if review is None else f" {review.in_words}"
    if provenance is None:
        return confirmed.strip()
    return f"{provenance.in_words(identify)} SHA-256 of the voxels {result.record.input.voxels_sha256}.{confirmed}"


def result_as_fragment(result: ScoreResult) -> str:
    """Headline, severe warnings, table and largest lesions as HTML for a notebook's cell. Raises OutputError."""
    return rendered("notebook.html", "", **_glance(result))


def _glance(result: ScoreResult) -> dict[str, object]:
    """Return the content of the page's first screen."""
    record, review = result.record, result.record.review
    confirmation = None if review is None else review.confirmation
    readers = () if review is None else [reading.reader for reading in review.readings]
    return {
        "head": headline.headline(record.methods, record.categories, record.warnings, confirmation, readers),
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


def components(result: ScoreResult, method: MethodScore) -> list[Row]:
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


def largest_slice(result: ScoreResult, lesion: Lesion) -> str:
    """Name the slice with most of a lesion."""
    return place_of(result.scan, max(lesion.components, key=lambda c: c.area_mm2).slice)


def _facts(result: ScoreResult, identify: bool) -> dict[str, object]:
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


def comparison_as_page(
    comparison: Comparison, reports: dict[str, str] | None = None, drawn: Sequence[Sequence[Picture]] = ()
) -> str:
    """`comparison.html`.

    Args:
        comparison: The comparison.
        reports: Relative addresses of the scans' own reports, by what to call them.
        drawn: Pictures of the earlier and of the later scan.
    """
    from . import comparison as texts

    title = f"Coronary calcium: {comparison.earlier['name']} and {comparison.later['name']}"
    origin = provenance_of().in_words(identify=False)
    content = {"reports": reports, "comparison": comparison, "figures": drawn, "made": origin}
    return rendered("comparison.html", title, **vars(texts) | content)


def rendered(template: str, title: str, **content: object) -> str:
    """Return a page. template: File name. content: Variables of the template. Raises OutputError."""
    return _environment().get_template(template).render(title=title, **content)


@cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ModuleNotFoundError as error:  # as in Slicer before the networks' packages are installed
        raise OutputError("Reports need the package jinja2. Install it (pip install jinja2), and try again.") from error
    options: dict[str, Any] = dict.fromkeys(("autoescape", "trim_blocks", "lstrip_blocks"), True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_folder("Report")),
        undefined=jinja2.StrictUndefined,
        bytecode_cache=template_cache(options),
        **options,
    )
    for module in (files, labels, text, columns, results, scores, doubt, headline, pictures):
        environment.globals |= vars(module)
    environment.globals |= globals()
    environment.filters.update(
        colour=SITE_COLOURS.__getitem__,
        data_uri=lambda jpeg: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
        svg_uri=lambda svg: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}",
        general="{:g}".format,
        number=lambda value, digits=0: "–" if value is None else f"{value:.{digits}f}",
        percent=percent,
    )
    environment.tests["coronary"] = lambda site: isinstance(site, Artery)
    return environment


def interval_bar(score: float, low: float, high: float) -> str:
    """Return an SVG of a score and its interval on the categories."""
    categories = ", ".join(CATEGORIES).replace("-", "–")
    title = f"Agatston {score:.0f}, 90 % interval {headline.range_text(low, high)}, on categories {categories}"
    bounds = (0.0, *LIMITS, _HIGHEST)
    bands = zip(bounds, bounds[1:], _BANDS, strict=False)
    return rendered("interval_bar.svg", title, score=score, low=low, high=high, bands=bands, x_of=_x_of)


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
