"""Pictures on the first screen of a report: the largest lesions, or of a score of 0 each artery along its course."""

from __future__ import annotations

import base64
import html
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..anatomy.courses import Course, artery_courses
from ..core.files import read_file
from ..core.labels import SITE_COLOURS, TERRITORIES, Artery
from ..scoring.doubt import lesion_name, number_of, probability_text
from .pictures import (
    TERRITORY_OPACITY,
    Picture,
    as_jpeg,
    enlarged,
    left_out_pictures,
    outline,
    overview_pictures,
    plane_pictures,
    pointed_at,
)

if TYPE_CHECKING:
    from ..record.scores import Lesion, LesionSet, MethodScore
    from ..results import CalciumResult

MAX_LARGEST = 4
"""Number of lesions pictured on the first screen of a report."""

PART_MM, MAX_PARTS, COLUMNS = 12.0, 8, 4
"""Length of a part of a course, the largest number of parts, and the pictures in a row."""

MAX_COMPARED = 3
"""Number of pictures of a scan in a comparison."""

_FIGURE = re.compile(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"><figcaption>([^<]*)</figcaption>')

WIDTH_MM = 45.0
"""Width of the picture of a part."""


def largest_pictures(result: CalciumResult) -> list[Picture]:
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
    elsewhere = () if method.non_coronary is None else (method.non_coronary.lesion_set,)
    sets = (method.lesion_set, method.left_out_set, *elsewhere) if method.alternative_lesion is not None else ()
    return [(of, lesion) for of in sets for lesion in of.lesions if lesion.id == method.alternative_lesion]


def course_pictures(result: CalciumResult) -> list[Picture]:
    """Draw each artery in parts from its ostium, each as the maximum over its slices with the territory outlined.

    Empty without territories, or if no ostium is known.
    """
    courses = artery_courses(result.territory_labels, result.scan.image.GetSpacing())
    return [_course_picture(result, artery, course) for artery, course in courses.items()]


def _course_picture(result: CalciumResult, artery: Artery, course: Course) -> Picture:
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
    sheet = Image.new("RGB", (size * COLUMNS, size * -(-len(tiles) // COLUMNS)))
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (n % COLUMNS * size, n // COLUMNS * size))
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
    outline(picture, shape, SITE_COLOURS[artery], TERRITORY_OPACITY)
    return picture.resize((220, 220))
