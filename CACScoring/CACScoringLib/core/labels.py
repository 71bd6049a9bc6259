"""Labels of lesions: the arteries, calcium elsewhere, and what a reader rejected."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from .ct import MaskError
from .text import printable

NOT_CORONARY_ID = "not-coronary"
"""Id, and beginning of the name, of the segment that holds what a reader rejected."""


class Artery(IntEnum):
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

    @property
    def full_name(self) -> str:
        return _FULL_NAMES[self]

    @property
    def short_name(self) -> str:
        """Name in lists and on buttons."""
        return self.key

    @classmethod
    def called(cls, name: str) -> Artery | None:
        """Return the artery whose key a segment's name is or begins with ("LAD: left anterior …")."""
        return next((artery for artery in cls if artery.key.lower() == _word(name)), None)


class NonCoronary(IntEnum):
    """Label of calcium outside the coronary arteries in `lesions.nii.gz` and in label maps given by a reader."""

    AORTIC_VALVE = 8
    MITRAL_ANNULUS = 9
    THORACIC_AORTA = 10
    OTHER = 11

    @property
    def key(self) -> str:
        """Name in `scores.json`: aortic_valve, mitral_annulus, thoracic_aorta, other."""
        return self.name.lower()

    @property
    def full_name(self) -> str:
        return _FULL_NAMES[self]

    @property
    def short_name(self) -> str:
        """Name in lists and on buttons, distinct from those of arteries."""
        return _SHORT_NAMES[self]

    @classmethod
    def called(cls, name: str) -> NonCoronary | None:
        """Return the site that a segment's name denotes: its full name, short name or key, alone or before a colon.

        Hyphens and underscores count as spaces. "other" is an artery.
        """
        word = _spaced(_word(name))
        keys = {_spaced(site.key): site for site in cls if site != cls.OTHER}
        return keys.get(word) or next((s for s in cls if word in (_spaced(s.full_name), s.short_name)), None)


Site = Artery | NonCoronary
"""Where calcium lies."""


def site_of(label: int) -> Site:
    """The site of a label. Raises ValueError for any other number."""
    return Artery(label) if label <= max(Artery) else NonCoronary(label)


def site_called(name: str) -> Site | None:
    """The site of a segment; see `Artery.called` and `NonCoronary.called`."""
    return Artery.called(name) or NonCoronary.called(name)


AnySite = TypeVar("AnySite", Artery, NonCoronary)
Value = TypeVar("Value")


class SiteMap(dict[AnySite, Value]):
    """Values of sites, by label or by name: `scores[Artery.LAD]` is `scores["LAD"]`."""

    def __getitem__(self, site: AnySite | str) -> Value:
        return super().__getitem__(site)  # type: ignore[index]

    def __missing__(self, name: Any) -> Value:
        for site, value in self.items():
            if site.key == name:
                return value
        raise KeyError(f"{name!r} is none of {', '.join(site.key for site in self)}")


SITES: tuple[Site, ...] = (*Artery, *NonCoronary)


def label_called(name: str) -> int:
    """The label of a segment by its name: of a `Site`, or NOT_CORONARY. Raises MaskError for any other."""
    if is_not_coronary(name):
        return NOT_CORONARY
    if (site := site_called(name)) is None:
        raise MaskError(f"The segment {printable(name)} is no site. Rename it to one of {SITE_NAMES}, or remove it.")
    return int(site)


MAIN_ARTERIES = (Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA)
"""The four that CAC-DRS counts and whole-scan estimates estimate."""


def is_not_coronary(name: str) -> bool:
    """True if a segment is called like NOT_CORONARY_ID, alone or before a colon."""
    return _word(name) == NOT_CORONARY_ID


def _word(name: str) -> str:
    return name.split(":")[0].strip().lower()


def _spaced(word: str) -> str:
    return word.replace("-", " ").replace("_", " ")


_FULL_NAMES = {
    Artery.LM: "left main",
    Artery.LAD: "left anterior descending",
    Artery.LCX: "left circumflex",
    Artery.RCA: "right coronary artery",
    Artery.OTHER: "other coronary artery",
    Artery.UNASSIGNED: "not assigned to an artery",
    NonCoronary.AORTIC_VALVE: "aortic valve and root",
    NonCoronary.MITRAL_ANNULUS: "mitral annulus",
    NonCoronary.THORACIC_AORTA: "thoracic aorta",
    NonCoronary.OTHER: "other non-coronary",
}


_SHORT_NAMES = {
    NonCoronary.AORTIC_VALVE: "aortic valve",
    NonCoronary.MITRAL_ANNULUS: "mitral annulus",
    NonCoronary.THORACIC_AORTA: "aorta",
    NonCoronary.OTHER: "elsewhere",
}


TERRITORIES = (
    "outside",
    "LM",
    "LAD",
    "LCX",
    "RCA",
    "aortic valve and root",
    "mitral annulus",
    "ascending aorta",
    "descending aorta",
    "pulmonary artery",
    "other",
)
"""Labels of `territories.nii.gz`, label 0 first. "other": heart that no artery, valve or vessel is near to."""


SITE_NAMES = ", ".join([*(artery.key for artery in Artery), *(s.full_name for s in NonCoronary), NOT_CORONARY_ID])
"""What segments are called."""


NOT_CORONARY = 7
"""Label in a review of what a reader rejected. It never reaches a file of labels: no `Site` has it."""


@dataclass(frozen=True)
class Labelled:
    """Labelled voxels of a scan. flat: indices into its array [k, j, i], rising, each once. values: uint8, not 0."""

    flat: np.ndarray
    values: np.ndarray

    def where(self, keep: np.ndarray) -> Labelled:
        return Labelled(self.flat[keep], self.values[keep])

    def given(self, flat: np.ndarray, values: np.ndarray) -> Labelled:
        """Label some voxels anew.

        Args:
            flat: Indices of the voxels, rising, each once.
            values: Label of each, uint8; 0 takes its label away.
        """
        keep, new = ~np.isin(self.flat, flat, kind="sort"), values != 0
        every = np.concatenate([self.flat[keep], flat[new]])
        order = np.argsort(every, kind="stable")
        return Labelled(every[order], np.concatenate([self.values[keep], values[new]])[order])
