"""Options of `cac validate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cli.options import DEVICES
from CACScoringLib.core.options import argument, option


@dataclass(frozen=True)
class ValidationSettings:
    """Score scans that have reference scores, and write validation.html: agreement in total, by category, artery and
    lesion, pictures of what was missed and wrongly counted, tables (CSV) and figures.

    Rerun the command to resume.

    Attributes:
        reference: COCA's folder Gated_release_final (contours) or deidentified_nongated (scores.xlsx); a folder of
            orCaScore (.mhd), of label maps NAME-lesions beside NAME, or of segmentations NAME.seg.nrrd; or a table
            (CSV) with ct or id, and total, LM, LAD, LCX, RCA or lesions; DeepCAC's table of NLST, with --scans; a
            project; or digital patients of cac phantom.
        output: Folder for validation.html and all it is made from.
        scans: Folder below which the scans lie, for references that name them by an id.
        columns: Columns of a table that are called otherwise, by what they mean, such as
            id=Patient,total="Manual Agatston"; the other columns are not read.
        calibrate: Calibrate scoring on these scans, report the agreement before and after with every scan evaluated by
            other patients, and store it as the model NAME, to score with by --model NAME.
        model: Model, or its card NAME.json, to use in place of the bundled one.
        before: Output of an earlier cac validate of this reference with other models: adds a paired comparison and a
            verdict: better, worse or undecided.
        overwrite: Score all scans again, whatever the folder holds.
        use: Use of a project's scans (default: test).
        annotator: Annotator of a project whose annotations count, where there are several.
        workers: Number of processes (default: one per core, as far as memory allows).
        device: Of the networks (default: auto).
    """

    reference: Path = argument(metavar="REFERENCE")
    output: Path = option(metavar="DIR")
    scans: Path | None = option(None, metavar="DIR")
    columns: str | None = option(None, metavar="MEANING=COLUMN,…")
    calibrate: str | None = option(None, metavar="NAME")
    model: tuple[str, ...] = option((), metavar="NAME")
    before: Path | None = option(None, metavar="DIR")
    overwrite: bool = False
    use: str | None = option(None, choices=("test", "validation", "training", "all"))
    annotator: str | None = option(None, metavar="NAME")
    workers: int | None = option(None, metavar="N")
    device: str = option("auto", choices=DEVICES)
