"""The command `info`: contents of a folder or file, and which series would be scored."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CTError, NotVolumeError, OutputError, UnreadableError
from ..core.options import argument, option
from ..core.progress import Progress
from ..core.text import printable
from .options import Command

if TYPE_CHECKING:
    from ..io.dicom import DicomSlice
    from ..io.series_rule import SeriesFacts


@dataclass(frozen=True)
class InfoOptions:
    """List the CT series, cardiac phases and image files of a folder, and which of them cac score would score, and why.

    Only headers are read; of image files also the number of voxels is compared with the header.

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA.
        json: Print JSON (schema cac-info/1) for programs.
        table: Also write a new table of all series and phases for cac cohort, which scores them beside each other.
    """

    ct: Path = argument(metavar="CT")
    json: bool = False
    table: Path | None = option(None, metavar="FILE.csv")


def run(options: InfoOptions, progress: Progress) -> None:
    """Print the contents. Raises CTError, OutputError."""
    from ..io.files import is_archive, unpacked
    from ..io.image_files import quiet_readers

    with quiet_readers():
        if is_archive(options.ct):
            with unpacked(options.ct) as folder:
                series, contents = _contents(folder)
                contents["reason"] = contents["reason"].replace(str(folder), str(options.ct))
                inside = [replace(facts, folder=facts.folder.replace(str(folder), str(options.ct))) for facts in series]
                series, contents["series"] = inside, [asdict(facts) for facts in inside]
        else:
            series, contents = _contents(options.ct)
    if options.table is not None:
        _write_table(options.table, options.ct, series)
    if options.json:
        print(json.dumps({"schema": "cac-info/1"} | contents, indent=1, ensure_ascii=False))
        return
    scored = contents["scored"]
    names = Counter(str(replace(facts, label="")) for facts in series)
    for facts in series:
        uid = f", UID {facts.uid}" if names[str(replace(facts, label=""))] > 1 else ""
        origin = f", {facts.origin}" if contents["patients"] > 1 else ""
        fault = f": {facts.fault}" if facts.fault else ""
        print(f"{'*' if facts.label == scored else ' '} series {facts}{origin}{uid}{fault}")
    for image in contents["images"]:
        size, spacing = "×".join(map(str, image["size"])), " × ".join(f"{step:g}" for step in image["spacing_mm"])
        fault = f": {image['fault']}" if image["fault"] else ""
        print(f"{'*' if image['name'] == scored else ' '} file {image['name']} ({size} voxels of {spacing} mm){fault}")
    unread = {"unreadable": contents["unread_files"]}
    unconsidered = {"localizer": contents["localizers"]} | contents["other_images"] | unread
    if listed := ", ".join(f"{count} {name}" for name, count in unconsidered.items() if count):
        print(f"  not considered: {listed}")
    if contents["patients"] > 1:
        print(f"  {contents['patients']} patients")
    outcome = f"Scored (*): {scored}." if scored else "Nothing would be scored."
    print(printable(f"{outcome} {contents['reason']}", message=True))


def _contents(path: Path) -> tuple[list[SeriesFacts], dict[str, Any]]:
    """Return the CT series and cardiac phases of a path, and its contents for programs. Raises UnreadableError.

    "scored" is the label of the series, or name of the image file, that would be scored; None if the user has to
    choose.
    """
    from ..io.dicom import find_slices, is_dicom, read_multi_frame
    from ..io.image_files import check_ct_file, read_header
    from ..io.reading import image_files
    from ..io.series import series_facts
    from ..io.series_rule import patient_id_or_name

    if not path.exists():
        raise UnreadableError(f"{path} does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
    if path.is_dir():
        slices, broken = find_slices(path)
        files = image_files(path)
    else:
        slices, broken, files = ([read_multi_frame(path)], {}, []) if is_dicom(path) else ([], {}, [path])
    series, images = series_facts(slices), []
    for file in files:
        try:
            reader = read_header(file)
        except UnreadableError as error:
            if file == path:
                raise
            broken[file] = error
            continue
        name = printable(file.name if file == path else file.relative_to(path).as_posix())
        fault = ""
        try:
            check_ct_file(file)
        except CTError as error:
            fault = str(error)
        images.append({"name": name, "size": reader.GetSize(), "spacing_mm": reader.GetSpacing(), "fault": fault})
    modalities = Counter(slice_.text("Modality") or "unknown" for slice_ in slices)
    del modalities["CT"]
    if images:
        is_only = len(images) == 1 and not series
        scored = images[0]["name"] if is_only and not images[0]["fault"] else None
        several = (
            "There are image files and CT series, or several image files: give the path of one file, or score all with "
            "cac cohort FOLDER --output DIR."
        )
        only = "It is the only image file." if scored else "Its only image file cannot be scored."
        reason = only if is_only else several
    else:
        scored, reason = _choice(path, slices, broken)
    patients = set(map(patient_id_or_name, slices))
    return series, {
        "patients": len(patients),
        "series": [asdict(facts) for facts in series],
        "images": images,
        "localizers": sum(slice_.text("Modality") == "CT" and slice_.is_localizer for slice_ in slices),
        "other_images": dict(sorted(modalities.items())),
        "unread_files": len(broken),
        "scored": scored,
        "reason": reason,
    }


def _choice(path: Path, slices: list[DicomSlice], broken: Mapping[Path, UnreadableError]) -> tuple[str | None, str]:
    """Return the label of the series that would be scored, None for none, and why."""
    from ..io.dicom import no_slices
    from ..io.series import choose_candidates

    if not slices:
        return None, str(no_slices(path, broken))
    try:
        (candidate,), warnings = choose_candidates(slices, None)
    except CTError as error:
        return None, re.sub(":$", ".", str(error).splitlines()[0])
    if candidate.facts.fault:
        return None, "Its only CT series cannot be scored."
    return candidate.label, warnings[0].message if warnings else "It is the only CT series."


def _write_table(path: Path, ct: Path, series: Iterable[SeriesFacts]) -> None:
    """Write the series that make a stack as scans of a cohort. Raises CTError, OutputError."""
    from ..scans.source import ScanSource
    from ..scans.table import write_scans

    if path.exists():
        raise OutputError(f"{path} exists. Give --table a new file.")
    scans = [ScanSource(facts.name, "", ct, facts.label) for facts in series if not facts.fault]
    if not scans:
        raise NotVolumeError(f"{ct} holds no DICOM series that can be scored, so there is no table to write.")
    write_scans(path, scans)


add_arguments = Command(InfoOptions, run, interrupted="Interrupted.").declare
