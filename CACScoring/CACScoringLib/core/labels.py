"""Labels of lesions: coronary arteries, other sites of calcium, and lesions that a reader rejected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from .errors import MaskError
from .files import resource_rows
from .text import printable

NOT_CORONARY_ID = "not-coronary"
"""ID, and beginning of the name, of the segment of rejected lesions."""

_ROWS = {int(row["label"]): row for row in resource_rows("sites.csv")}
"""Names, colour and codes of sites by label.

`synonyms` are further names, without `_FILLERS`: a branch belongs to the artery it leaves, the posterior descending
branch to the right coronary artery; "left coronary artery" is ambiguous, as it comprises three arteries.
"""


class _Label(IntEnum):
    """Label of calcium, with its names."""

    @property
    def key(self) -> str:
        """Name in `scores.json`."""
        return self.name.lower()

    @property
    def full_name(self) -> str:
        return _ROWS[self]["full_name"]

    @property
    def short_name(self) -> str:
        """Name in lists and on buttons, distinct among all sites."""
        return _ROWS[self]["short_name"]


class Artery(_Label):
    """Label of a coronary artery in `lesions.nii.gz` and in label maps given by a reader."""

    LM = 1
    LAD = 2
    LCX = 3
    RCA = 4
    OTHER = 5
    UNASSIGNED = 6

    @property
    def key(self) -> str:
        """Name in `scores.json`: LM, LAD, LCX, RCA, other, unassigned."""
        return self.name if self <= Artery.RCA else self.name.lower()


class NonCoronary(_Label):
    """Label of calcium outside the coronary arteries in `lesions.nii.gz` and in label maps given by a reader.

    Keys in `scores.json`: aortic_valve, mitral_annulus, thoracic_aorta, other.
    """

    AORTIC_VALVE = 8
    MITRAL_ANNULUS = 9
    THORACIC_AORTA = 10
    OTHER = 11


Site = Artery | NonCoronary
"""Site of calcium."""


def site_of(label: int) -> Site:
    """Return the site of a label. Raises ValueError for any other number."""
    return Artery(label) if label <= max(Artery) else NonCoronary(label)


def site_called(name: str) -> Site | None:
    """Return the site that a segment's or column's name denotes, None for any other name.

    The part before a colon counts, without regard to case, hyphens, underscores, words such as "coronary artery" or
    "calcification", and a number at its end ("LAD: left anterior descending", "Left_Circumflex_Artery", "RCA 2").

    Examples:
        >>> site_called("Left Anterior Descending coronary artery")
        <Artery.LAD: 2>
    """
    word = _word(name)
    short = " ".join(part for part in word.split() if part not in _FILLERS)
    return _BY_NAME.get(word) or _BY_NAME.get(short) or _BY_NAME.get(re.sub(r" ?\d+$", "", short))


AnySite = TypeVar("AnySite", Artery, NonCoronary)
Value = TypeVar("Value")


class SiteMap(dict[AnySite, Value]):
    """Values by site, read by label or by name: `scores[Artery.LAD]` is `scores["LAD"]`."""

    def __getitem__(self, site: AnySite | str) -> Value:
        return super().__getitem__(site)  # type: ignore[index]

    def __missing__(self, name: Any) -> Value:
        for site, value in self.items():
            if site.key == name:
                return value
        raise KeyError(f"{name!r} is none of {', '.join(site.key for site in self)}")


SITES: tuple[Site, ...] = (*Artery, *NonCoronary)


def label_called(name: str) -> int:
    """Return the `Site` label or NOT_CORONARY that a segment's name denotes. Raises MaskError for any other name."""
    if is_not_coronary(name):
        return NOT_CORONARY
    if (site := site_called(name)) is None:
        raise MaskError(f"The segment {printable(name)} is no site. Rename it to one of {SITE_NAMES}, or remove it.")
    return int(site)


MAIN_ARTERIES = (Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA)
"""Arteries that CAC-DRS counts and whole-scan estimates cover."""

ARTERIES = tuple(artery.key for artery in MAIN_ARTERIES)
"""Names of MAIN_ARTERIES: LM, LAD, LCX, RCA."""


def is_not_coronary(name: str) -> bool:
    """True if a segment's name, or its part before a colon, is NOT_CORONARY_ID."""
    return _word(name) == _word(NOT_CORONARY_ID)


def _word(name: str) -> str:
    return " ".join(re.sub("[-_]", " ", name.split(":")[0]).lower().split())


_FILLERS = {"artery", "arteries", "coronary", "branch", "calcification", "calcium", "plaque", "lesion"}
"""Words that do not change the meaning of a name."""


def _names(site: Site) -> set[str]:
    keys = {site.full_name, site.short_name, *_ROWS[site]["synonyms"].split(";")}
    return {_word(name) for name in keys | ({site.key} if site != NonCoronary.OTHER else set())}


_BY_NAME: dict[str, Site] = {name: site for site in SITES for name in _names(site)}

SNOMED_CODES: dict[Site, tuple[str, ...]] = {site: tuple(_ROWS[site]["snomed_codes"].split()) for site in SITES}
"""SNOMED CT codes of a site (first) and of its branches (PS3.16 CID 3015, CID 3010)."""

SITE_CONCEPTS: dict[Site, tuple[str, str]] = {
    site: (row["concept"], row["concept_name"]) for site in SITES if (row := _ROWS[site])["concept"]
}
"""Code and text in SNOMED CT of sites that it knows; arteries as in CID 3015."""


TERRITORIES = (
    *("outside", "LM", "LAD", "LCX", "RCA", "aortic valve and root", "mitral annulus", "ascending aorta"),
    *("descending aorta", "pulmonary artery", "other"),
)
"""Names of the labels of `territories.nii.gz`, label 0 first. "other" is heart far from any artery, valve or vessel."""


SITE_OF: dict[str, Site] = {
    **dict.fromkeys(TERRITORIES, NonCoronary.OTHER),
    **{artery.key: artery for artery in MAIN_ARTERIES},
    "aortic valve and root": NonCoronary.AORTIC_VALVE,
    "mitral annulus": NonCoronary.MITRAL_ANNULUS,
    **dict.fromkeys(("ascending aorta", "descending aorta"), NonCoronary.THORACIC_AORTA),
}
"""Site of calcium by the territory that holds it."""


SITE_NAMES = ", ".join([*(artery.key for artery in Artery), *(s.full_name for s in NonCoronary), NOT_CORONARY_ID])
"""Names that a segment may have."""


WINDOW_HU = (-150.0, 450.0)
"""Darkest and brightest HU of the pictures; separates fat, muscle and the four density weights."""

SITE_COLOURS: dict[Site, tuple[int, int, int]] = {
    site: (red, green, blue) for site in SITES for red, green, blue in [map(int, _ROWS[site]["colour"].split())]
}
HEART_COLOUR = (120, 144, 156)
"""Colour of the heart's outline, red, green and blue."""


NOT_CORONARY = 7
"""Label of rejected lesions in a review; no `Site`, and never written to a label map."""


@dataclass(frozen=True)
class Labelled:
    """Labelled voxels of a scan.

    Attributes:
        flat: Flat indices into its array [k, j, i], ascending and unique.
        values: Labels, uint8, not 0.
    """

    flat: np.ndarray
    values: np.ndarray

    def where(self, keep: np.ndarray) -> Labelled:
        return Labelled(self.flat[keep], self.values[keep])

    def with_labels(self, flat: np.ndarray, values: np.ndarray) -> Labelled:
        """Return the labels with those of some voxels replaced.

        Args:
            flat: Flat indices of the voxels, ascending and unique.
            values: New labels, uint8; 0 removes the label.
        """
        keep, new = ~np.isin(self.flat, flat, kind="sort"), values != 0
        voxels = np.concatenate([self.flat[keep], flat[new]])
        order = np.argsort(voxels, kind="stable")
        return Labelled(voxels[order], np.concatenate([self.values[keep], values[new]])[order])
