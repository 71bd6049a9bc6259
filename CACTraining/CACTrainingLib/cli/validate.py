"""The command `cac validate`: automatic scores against a user's own reference scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.options import DEVICES, command
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress

Folder = Annotated[Path | None, option(metavar="DIR")]
Name = Annotated[str | None, option(metavar="NAME")]


def run(
    reference: Annotated[Path, argument(metavar="REFERENCE")],
    *,
    scans: Folder = None,
    output: Annotated[Path, option(metavar="DIR")],
    calibrate: Name = None,
    model: Annotated[tuple[str, ...], option(metavar="NAME")] = (),
    before: Folder = None,
    overwrite: bool = False,
    workers: Annotated[int | None, option(metavar="N")] = None,
    device: Annotated[str, option(choices=DEVICES)] = "auto",
    progress: Progress,
) -> None:
    """Score scans that have reference scores, and write validation.html: agreement in total, by category, artery and
    lesion, pictures of what was missed and wrongly counted, tables (CSV) and figures.

    Rerun the command to resume.

    Args:
        reference: COCA's folder Gated_release_final (contours) or deidentified_nongated (scores.xlsx); a folder of
            orCaScore (.mhd), of label maps NAME-lesions beside NAME, or of segmentations NAME.seg.nrrd; or a table
            (CSV) with ct or id, and total, LM, LAD, LCX, RCA or lesions; or DeepCAC's table of NLST, with --scans.
        scans: Folder below which the scans lie, for references that name them by an id.
        output: Folder for validation.html and all it is made from.
        calibrate: Calibrate scoring on these scans, report the agreement before and after with every scan evaluated by
            other patients, and store it as the model NAME, to score with by --model NAME.
        model: Model, or its card NAME.json, to use in place of the bundled one.
        before: Output of an earlier cac validate of this reference with other models: adds a paired comparison and a
            verdict: better, worse or undecided.
        overwrite: Score all scans again, whatever the folder holds.
        workers: Number of processes (default: one per core, as far as memory allows).
        device: Of the networks (default: auto).

    Raises:
        CTError: The reference or a model cannot be used.
        OutputError: The output cannot be written.
    """
    from CACScoringLib.models.choice import ModelChoice

    from ..validation.run import ValidationSettings, validate

    settings = ValidationSettings(
        reference,
        output,
        models=ModelChoice(model, device=device),
        scans=scans,
        workers=workers,
        overwrite=overwrite,
        calibrate=calibrate,
        before=before,
    )
    done = validate(settings, progress)
    print(f"{output}: {len(done.scans)} scans compared, {len(done.refused)} left out")
    if done.calibrated is not None:
        name = done.calibrated.card.name
        print(f"Stored {name}. Use it with: cac score CT --model {name}")
        print(f"Take it away with: cac models install {name} --previous")
    for sentence in done.verdicts:
        print(sentence)
    progress.done(output)
    print(f"{done.page}: the validation")


add_arguments = command(run, ("studies", "cohort")).declare
