"""Dense lesions that are no calcium: metal and other foreign bodies (stents, leads, catheters, clips), and noise.

A foreign body is a connected part of the scan (26 neighbours) above some HU, followed out of the heart.
Limits were chosen on digital patients and on real scans without calcium.

A stent whose voxels stay below METAL_HU is not found. On 40 digital patients a classifier of mass by length, evenness,
ends, width, roundness and hollowness found 4 % of such stents where it called 1 % of long plaques stents. Plaques there
are even in density, as not all are. Nor does a mere warning of long lesions help: pieces of 16 mm and more at 130 HU
occur in 35 % of 40 other scans with stents and 11 % of 200 scans of other patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import SimpleITK as sitk
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from ..core.ct import ScanWarning
from ..core.text import abbreviated_list
from ..core.voxels import voxels_of
from ..record.findings import BloodPool
from ..record.scores import LesionSet
from .lesions import connected_voxels

METAL_HU = 2000.0
"""Calcium does not get this dense in a CT of the chest; stents, leads, clips and wires do."""

POSSIBLE_METAL_HU = 1300.0
"""Peak above which a lesion may be metal: of 828 coronary lesions of digital patients 2 exceed it, of 109 clips 52."""

METAL_EDGE_HU = 500.0
"""Density from which voxels that touch metal are taken for its blurred edge: blood, enhanced too, marrow and noise are
below it, so that metal does not reach calcium through them, as it would at the threshold of the score."""

METAL_REACH_MM = 80.0
"""Distance beyond the lesions to which a device is followed: a lead or catheter is detected by its way out of the
heart, and so is a device of 10 cm with only its rim at the heart."""

LINE_LEVELS_HU = (250.0, 400.0, 600.0)
"""Levels at which lines are looked for: faint catheters need the lowest; wide ones, and those beside bone or in
enhanced blood, higher ones."""

LINE_LENGTH_MM, LINE_OUTSIDE_MM = 50.0, 20.0
"""Smallest length of a lead or catheter, and of its part beyond the candidates. Calcium of an artery as long as this
lies in the heart, all of it a candidate."""

LINE_SECTION_MM2, LINE_UNEVENNESS = 12.0, 0.4
"""Largest volume by length of a line, blur included, and largest variation of its density. Ribs are wider and vary
more."""

CLIP_LENGTH_MM = 20.0
"""Largest length of metal that is named a stent, clip or wire."""

BLOOD_MM3 = 50000.0
"""A lesion larger than this is enhanced blood, also where a catheter runs through it: it is not called metal."""

NOISE_REACH_SDS = 5.0
"""Noise SDs above blood that noise alone reaches in one voxel of 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""Candidates of noise that a reader would still reject singly."""

_TISSUE_HU = 45.0
_LARGEST_MM3, _MIN_MM3 = 20000.0, 50.0
_CELL_MM, _BIN_MM, _MIN_BINS = 2.0, 4.0, 5
_AROUND = np.ones((3, 3, 3), bool)
_MIDDLE = 13  # of the 27 voxels around one


class MetalKind(IntEnum):
    """Kind of a foreign body."""

    METAL = 1
    LINE = 2
    CLIP = 3

    @property
    def title(self) -> str:
        return {self.METAL: "metal", self.LINE: "lead, catheter or wire", self.CLIP: "stent, clip or wire"}[self]


@dataclass(frozen=True)
class Course:
    """A piece along its length: the longest way through it, volume by length, how much of the length lies beyond the
    candidates, and the coefficient of variation along it of what the piece adds to tissue, without its ends (infinite
    where the piece is too short to tell)."""

    length_mm: float
    section_mm2: float
    outside_mm: float
    unevenness: float

    @property
    def is_line(self) -> bool:
        """True if it is long, thin and even."""
        return (
            self.length_mm >= LINE_LENGTH_MM
            and self.section_mm2 <= LINE_SECTION_MM2
            and self.unevenness <= LINE_UNEVENNESS
        )


def metal_lesions(lesions: LesionSet, scan: sitk.Image) -> dict[int, MetalKind]:
    """Return the lesions, by id, that hold or touch (26 neighbours) a foreign body, and its kind (`metal_kinds`).

    Args:
        lesions: Lesions of the scan, of the CT itself or of its calcium map.
        scan: The CT.
    """
    voxels = lesions.voxels
    ids = voxels.ids
    kinds = metal_kinds(np.stack(np.unravel_index(voxels.flat, voxels.shape), axis=1), scan)
    counts = np.zeros((int(ids.max(initial=0)) + 1, max(MetalKind) + 1), int)
    np.add.at(counts, (ids[kinds > 0], kinds[kinds > 0]), 1)
    most = BLOOD_MM3 / math.prod(scan.GetSpacing())
    touched = [lesion.id for lesion in lesions.lesions if counts[lesion.id].any() and lesion.voxels <= most]
    return {number: MetalKind(int(counts[number].argmax())) for number in touched}


def metal_warning(lesions: LesionSet, metal: dict[int, MetalKind]) -> list[ScanWarning]:
    """Warn of a reader's lesions that are metal, if there are any. metal: of `metal_lesions`."""
    if not metal:
        return []
    message = f"{_metal_text(lesions, metal)} A reader labelled them, and they are scored."
    return [ScanWarning("metal-labelled", message)]


def without_metal(lesions: LesionSet, scan: sitk.Image) -> tuple[LesionSet, list[ScanWarning]]:
    """Leave out candidates, of the CT or of its calcium map, that are metal.

    Returns:
        The other candidates, and a warning that names those left out.
    """
    metal = metal_lesions(lesions, scan)
    if not metal:
        return lesions, []
    candidates = lesions.of(lesion.id for lesion in lesions.lesions if lesion.id not in metal)
    consequence = "They are excluded, with any calcium that touches them: label that by hand."
    return candidates, [ScanWarning("metal", f"{_metal_text(lesions, metal)} {consequence}")]


def dense_warning(lesions: LesionSet) -> list[ScanWarning]:
    """Warn, severely, of lesions that count although they are denser than nearly all calcium."""
    dense = [lesion for lesion in lesions.lesions if lesion.peak_hu > POSSIBLE_METAL_HU]
    if not dense:
        return []
    ids = abbreviated_list(str(lesion.id) for lesion in dense)
    message = (
        f"{len(dense)} of {len(lesions.lesions)} counted lesions peak above {POSSIBLE_METAL_HU:g} HU, as clips, stents "
        f"and wires do and calcium hardly ever does (lesion {ids}; up to {max(x.peak_hu for x in dense):.0f} HU)."
    )
    return [ScanWarning("possible-metal", message)]


def noise_warnings(counted: LesionSet, elsewhere: LesionSet, blood: BloodPool | None) -> Iterator[ScanWarning]:
    """Warn if noise alone explains many and most lesions; severely of those of the arteries.

    A lesion is explained where its peak is no more than NOISE_REACH_SDS above the blood; the doubt is raised where more
    than NOISE_CANDIDATES and more than half of all are. Of 130 HU and blood of 40 HU this can only be from 18 HU of
    noise on. Nothing is said of enhanced blood, which is a candidate itself, or where blood was not measured.

    Args:
        counted: Lesions of the arteries that count.
        elsewhere: Lesions outside the arteries.
        blood: Blood and noise; None if not measured.
    """
    if blood is None or blood.enhanced:
        return
    reach = blood.median_hu + NOISE_REACH_SDS * blood.noise_hu

    def explained(lesions: LesionSet, words: str) -> str:
        count, total = sum(lesion.peak_hu <= reach for lesion in lesions.lesions), len(lesions.lesions)
        if count <= max(NOISE_CANDIDATES, total / 2):
            return ""
        return (
            f"{count} of {total} {words} are no denser than noise alone can be (up to {reach:.0f} HU in blood of "
            f"{blood.median_hu:.0f} HU with noise of {blood.noise_hu:.0f} HU), so their total proves no calcium."
        )

    if message := explained(counted, "candidates"):
        advice = "Reconstruct the scan with a softer kernel or thicker slices."
        yield ScanWarning("noise-candidates", f"{message} {advice}")
    if message := explained(elsewhere, "lesions outside the coronary arteries"):
        yield ScanWarning("noise-elsewhere", message)


def _metal_text(lesions: LesionSet, metal: dict[int, MetalKind]) -> str:
    parts = []
    for kind in sorted(set(metal.values()), reverse=True):
        slices = [str(lesion.slices[0]) for lesion in lesions.lesions if metal.get(lesion.id) == kind]
        parts.append(f"{kind.title} (slices {', '.join(slices[:5])}{' …' if len(slices) > 5 else ''})")
    kinds = "; ".join(parts)
    return f"{len(metal)} lesion(s) are metal or another foreign body, or touch one: {kinds}."


def metal_kinds(candidates: np.ndarray, scan: sitk.Image) -> np.ndarray:
    """Find foreign bodies: the `MetalKind` that each candidate's voxel holds or touches (26 neighbours), else 0, [n].

    A body is metal where a part of METAL_EDGE_HU and more reaches METAL_HU anywhere, also outside the heart; a lead or
    catheter also where a part is long, thin, even, and leaves the candidates.

    Args:
        candidates: Voxels where calcium may be, [n, 3] along k, j, i, in the scan's order: the lesions of one or of
            both methods.
        scan: The CT they were found in, HU.
    """
    if not len(candidates):
        return np.zeros(0, np.uint8)
    mm = np.array(scan.GetSpacing()[::-1])
    reach = (METAL_REACH_MM / mm).astype(int)
    low, high = np.maximum(candidates.min(axis=0) - reach, 0), candidates.max(axis=0) + reach + 1
    hu = voxels_of(scan)[tuple(map(slice, low, high))]
    dense = _DenseVoxels.of(hu, candidates - low)
    kinds = np.zeros(len(dense.flat) + 1, np.uint8)
    for level in LINE_LEVELS_HU:
        if not dense.leaves_candidates(level):
            continue
        for voxels in dense.parts(level, dense.is_candidate, (_MIN_MM3 / mm.prod(), _LARGEST_MM3 / mm.prod())):
            path = dense.course(voxels, mm)
            if path.is_line and path.outside_mm >= LINE_OUTSIDE_MM:
                kinds[voxels] = MetalKind.LINE
    is_metal = dense.hu >= METAL_HU
    for voxels in dense.parts(METAL_EDGE_HU, is_metal) if is_metal.any() else ():
        path = dense.course(voxels, mm)
        if path.is_line:
            kinds[voxels] = MetalKind.LINE
        else:
            kinds[voxels] = MetalKind.CLIP if path.length_mm <= CLIP_LENGTH_MM else MetalKind.METAL
    return kinds[dense.neighbours].max(axis=1)


@dataclass(frozen=True)
class _DenseVoxels:
    """Voxels of the lowest of LINE_LEVELS_HU and more around candidates.

    Attributes:
        shape: Shape of the array [k, j, i] around the candidates.
        flat: Indices of the dense voxels in that array, rising [m].
        hu: Of each.
        is_candidate: True for candidates, bool [m].
        neighbours: Dense voxels at and beside each candidate, [n, 27] from 0; m where the voxel is not dense.
    """

    shape: tuple[int, ...]
    flat: np.ndarray
    hu: np.ndarray
    is_candidate: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def of(cls, hu: np.ndarray, candidates: np.ndarray) -> _DenseVoxels:
        is_dense = hu >= LINE_LEVELS_HU[0]
        flat = np.flatnonzero(is_dense)
        around = candidates[:, None] + np.argwhere(_AROUND) - 1
        # Beyond an end of the scan its last voxels take the neighbours' places.
        places = np.ravel_multi_index(tuple(np.moveaxis(around, -1, 0)), hu.shape, "clip")
        neighbours = np.searchsorted(flat, places)
        neighbours[np.append(flat, -1)[neighbours] != places] = len(flat)
        is_candidate = np.zeros(len(flat) + 1, bool)
        is_candidate[neighbours[:, _MIDDLE]] = True
        return cls(hu.shape, flat, hu[is_dense], is_candidate[:-1], neighbours)

    def leaves_candidates(self, level: float) -> bool:
        """True if a part of this density and more can hold a candidate and what is none."""
        is_part = np.append(self.hu >= level, False)
        is_outside = is_part & np.append(~self.is_candidate, False)
        return bool((is_part[self.neighbours[:, _MIDDLE]] & is_outside[self.neighbours].any(axis=1)).any())

    def parts(
        self, level: float, holding: np.ndarray, limits: tuple[float, float] = (0.0, math.inf)
    ) -> Iterator[np.ndarray]:
        """Iterate over the connected parts of this density and more that lie at or beside candidates: their voxels.

        holding: Voxels of which a part holds one, bool [m]. limits: Smallest and largest number of voxels of a part.
        """
        members = np.flatnonzero(self.hu >= level)
        part = np.full(len(self.flat) + 1, -1)
        part[members] = connected_voxels(self.flat[members], np.zeros(len(members)), self.shape)
        numbers = np.intersect1d(part[self.neighbours], part[:-1][holding])
        sizes = np.bincount(part[members], minlength=1)
        numbers = numbers[(numbers >= 0) & (sizes[numbers] >= limits[0]) & (sizes[numbers] <= limits[1])]
        for number in numbers:
            yield np.flatnonzero(part == number)

    def course(self, voxels: np.ndarray, mm: np.ndarray) -> Course:
        """Follow a part from end to end. mm: Spacing along k, j, i."""
        places = np.stack(np.unravel_index(self.flat[voxels], self.shape), axis=1)
        return course(places, self.hu[voxels], self.is_candidate[voxels], mm)


def course(voxels: np.ndarray, hu: np.ndarray, at: np.ndarray, mm: np.ndarray) -> Course:
    """Follow a connected piece from end to end.

    Args:
        voxels: Its voxels, [n, 3] along k, j, i.
        hu: Of each.
        at: Whether each is a candidate.
        mm: Spacing along k, j, i.
    """
    factor = np.maximum(1, np.ceil(_CELL_MM / mm - 1e-6)).astype(int)
    cells, cell = np.unique(voxels // factor, axis=0, return_inverse=True)
    graph = _graph(cells, factor * mm)
    end = int(np.argmax(dijkstra(graph, directed=False, indices=0)))
    along = dijkstra(graph, directed=False, indices=end)[cell.ravel()]
    length = float(along.max() + (factor * mm).min())
    bins = max(1, round(length / _BIN_MM))
    part = np.minimum((along / length * bins).astype(int), bins - 1)
    outside = np.bincount(part, ~at, bins) / np.maximum(np.bincount(part, minlength=bins), 1)
    line = np.bincount(part, np.maximum(hu - _TISSUE_HU, 0.0), bins)[1:-1]
    uneven = float(line.std() / line.mean()) if bins >= _MIN_BINS else math.inf
    return Course(length, len(voxels) * float(mm.prod()) / length, float(outside.mean()) * length, uneven)


def _graph(voxels: np.ndarray, step_mm: np.ndarray) -> csr_array:
    """Return a graph of distances in mm between touching voxels [n, 3] (26 neighbours) of a size along k, j, i."""
    place = voxels - voxels.min(axis=0) + 1
    size = place.max(axis=0) + 2
    flat = place @ np.array([size[1] * size[2], size[2], 1])
    number = np.zeros(int(size.prod()), np.int32)
    number[flat] = np.arange(1, len(voxels) + 1)
    first_voxels, second_voxels, ways = [], [], []
    for offset in np.argwhere(_AROUND)[14:] - 1:
        neighbours = number[flat + int(offset @ [size[1] * size[2], size[2], 1])]
        with_neighbour = np.flatnonzero(neighbours)
        first_voxels.append(with_neighbour)
        second_voxels.append(neighbours[with_neighbour] - 1)
        ways.append(np.full(len(with_neighbour), np.linalg.norm(offset * step_mm)))
    edges = (np.concatenate(ways), (np.concatenate(first_voxels), np.concatenate(second_voxels)))
    return coo_array(edges, shape=(len(voxels), len(voxels))).tocsr()
