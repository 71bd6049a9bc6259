"""Options of the command `score`, of a CT and of a chest radiograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.options import argument, option
from .options import SERIES, EstimateOptions, ExchangeOptions, UnusualOptions, settings_option


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ExchangeOptions, UnusualOptions, EstimateOptions):
    """Score one CT, or estimate the probability of coronary calcium from a chest radiograph (--radiograph).

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA.
        output: Folder for the results (default: the CT's name followed by -cac).
        overwrite: Replace results that are already in the folder.
        heart: Heart mask to use in place of the segmented heart.
        pericardium: Mask of all within the pericardium, to measure its fat.
        lesions: Lesions: a DICOM segmentation or structure set whose segments are coded or named by artery, or labels:
            1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; outside the arteries 8 aortic valve, 9 mitral annulus, 10 thoracic
            aorta, 11 other.
        earlier: Result of an earlier scan of the patient to compare with.
        scene: Write scene.mrb for 3D Slicer.
        radiograph: PA radiograph to score instead of a CT: DICOM (CR, DX), a grey PNG, JPEG or TIFF with bright bone,
            or a NIfTI, NRRD or MHA file of cac drr; --model selects the radiograph model, --settings add a lateral
            view, age, sex and body mass index.
    """

    ct: Path | None = argument(None, metavar="CT")
    output: Path | None = option(None, metavar="DIR")
    overwrite: bool = False
    series: str | None = option(None, SERIES, metavar="NUMBER|UID")
    heart: Path | None = option(None, metavar="MASK")
    pericardium: Path | None = option(None, metavar="MASK")
    lesions: Path | None = option(None, metavar="LABELS")
    earlier: Path | None = option(None, metavar="RESULT")
    scene: bool = False
    settings: tuple[str, ...] = settings_option(
        '{"scoring": {"rules": {"minimum_pixels": 3}}, "results": {"identify": true}}'
    )
    radiograph: Path | None = option(None, metavar="IMAGE")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ScoreOptions):
    __doc__ = ScoreOptions.__doc__

    sample: bool = option(False, "score a digital patient with known calcium mass; needs no CT")
