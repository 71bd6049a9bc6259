"""The command `explain`: why a lesion counts, or is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..core.errors import CTError, OutputError
from ..core.options import argument, option
from ..core.progress import Progress
from .options import command

if TYPE_CHECKING:
    from ..record.rules import ScoringRules
    from ..record.scores import Lesion, LesionVoxels


LABELS = "lesions.nii.gz"


def _explain(
    *,
    result: Annotated[Path, argument(metavar="RESULT")],
    lesion: Annotated[int, argument(metavar="LESION")],
    ct: Annotated[Path | None, option(None, metavar="CT")] = None,
    output: Annotated[Path, option(metavar="FILE")] = Path("lesion.jpg"),
    progress: Progress,
) -> None:
    """State why a lesion counts for the clinical score or is left out: probabilities, place, noise, neighbours, effect.

    Args:
        result: Results folder of cac score.
        lesion: Number of the lesion, as in the report and in lesions.csv.
        ct: The CT that was scored, to draw the lesion.
        output: New JPEG of the lesion, outlined in the middle of its slice.
        progress: Receiver of progress.
    """
    from ..record.score_record import read_result
    from ..report.explanation import explanation, gaps_mm

    record = read_result(result)
    method = record.methods["threshold"]
    listed = method.listed
    explained = next((entry for entry in listed if entry.id == lesion), None)
    if explained is None:
        raise CTError(f"{result} has no lesion {lesion}. lesions.csv lists them.")
    print(f"Lesion {lesion}, Agatston {explained.agatston:,.1f}")
    has_labels = (result / LABELS).is_file()
    gaps = gaps_mm(*_voxels(result, listed, method.rules)) if has_labels else {}
    print("\n".join(explanation(explained, method, record, listed, gaps)))
    if ct is not None:
        _draw(result, ct, explained, output)
        print(f"Picture: {output}")


def _voxels(
    folder: Path, lesions: Sequence[Lesion], rules: ScoringRules
) -> tuple[LesionVoxels, tuple[float, float, float]]:
    """Return the voxels of recorded lesions, from the label map of their result, and its spacing."""
    import numpy as np

    from ..core.voxels import voxels_of
    from ..io.image_files import read_image
    from ..scoring.lesions import find_lesions

    labels = read_image(folder / LABELS)
    dense = (labels > 0) * int(rules.threshold_hu + 1)  # every labelled voxel reached the threshold
    lesion_set = find_lesions(dense, voxels_of(labels).astype(np.uint8), rules)
    ids = np.array([0, *(lesion.id for lesion in lesions)], np.uint16)
    middles = np.array([lesion.centroid_ras_mm for lesion in (*lesion_set.lesions, *lesions)])
    count = len(lesion_set.lesions)
    is_same = np.linalg.norm(middles[:count, None] - middles[count:], axis=2) < 0.1  # mm, as rounded in the file
    numbers = ids[np.append(0, np.where(is_same.any(axis=1), is_same.argmax(axis=1) + 1, 0))]
    voxels = replace(lesion_set.voxels, ids=numbers[lesion_set.voxels.ids])
    return voxels.of(ids[1:].tolist()), labels.GetSpacing()


def _draw(folder: Path, ct: Path, lesion: Lesion, file: Path) -> None:
    import numpy as np

    from ..core.files import write_bytes_atomically
    from ..core.labels import SITE_COLOURS
    from ..io.reading import read_ct
    from ..report.pictures import patch_picture
    from ..review.state import ReviewFolder

    if file.exists():
        raise OutputError(f"{file} exists. Name a new file with --output.")
    state = ReviewFolder(folder, read_ct(ct))
    labels, labelled = np.zeros(state.heart.shape, np.uint8), state.labelled("threshold")
    labels.reshape(-1)[labelled.flat] = labelled.values
    x, y, z = lesion.centroid_ras_mm
    i, j, _ = state.scan.image.TransformPhysicalPointToContinuousIndex((-x, -y, z))
    k = max(lesion.components, key=lambda component: component.agatston).slice
    outlines = [(labels == site, colour) for site, colour in SITE_COLOURS.items()]
    write_bytes_atomically(file, patch_picture(state.scan, (k, j, i), outlines, 100.0))


add_arguments = command(_explain, interrupted="Interrupted.").declare
