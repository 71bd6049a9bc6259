"""How long a reader waits in the panel: from an edit to the updated totals, and for a scene to be there.

Run from the repository's root, with the real scan where it is at hand:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/review_speed.py [CT …]

Each scan is scored by the clinical rule and by a stand-in for the networks whose map is what exceeds blood, so that
there are more lesions, and larger ones, than a trained network leaves. The made-up scan (seeded) has 512 × 512 × 150
voxels of noisy tissue and 40 boxes of calcium. Then come edits of every kind, on lesions of any size, each followed by
the totals; medians and the slowest of RUNS, wall time and processor time (they differ where the machine is shared).
Goal: every edit of one lesion well under 100 ms. Also printed: the time for the nodes to be made, for a review to
begin, and the size of the scene's file.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from calcified_heart import NETWORKS

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_ct
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder
from CACScoringLib.pipeline import score_scan
from CACScoringLib.report import files as report
from CACScoringLib.results import ScoreResult
from CACScoringLib.review.scene import SceneReview

RUNS = 15
SIZE = (512, 512, 150)


def made_up_scan(seed: int = 3) -> tuple[CTScan, sitk.Image]:
    """The scan and its heart."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, 20, SIZE[::-1]).astype(np.int16)
    hu[:, :20] = -1000
    k, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    heart = ((k - 75) / 45) ** 2 + ((j - 256) / 110) ** 2 + ((i - 256) / 110) ** 2 < 1
    for _ in range(40):
        centre = rng.integers((45, 190, 190), (105, 320, 320))
        part = tuple(slice(c - n, c + n + 1) for c, n in zip(centre, (2, 6, 6), strict=True))
        hu[part] += np.int16(rng.choice([120, 190, 290, 560]))
    image, mask = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(heart.astype(np.uint8))
    image.SetSpacing((0.4, 0.4, 1.0))
    mask.CopyInformation(image)
    return CTScan(image, Acquisition("memory")), mask


def painted(review: SceneReview, lesion_id: int) -> None:
    """A stroke of Slicer's own brush over a lesion: 2 cm wide, three slices."""
    logic, editor = slicer.vtkSlicerSegmentEditorLogic(), slicer.vtkMRMLSegmentEditorNode()
    review.scene.AddNode(editor)
    logic.SetMRMLScene(review.scene)
    logic.SetSegmentEditorNode(editor)
    logic.SetSegmentationNode(review.nodes.calcium)
    logic.SetSourceVolumeNode(review.nodes.volume)
    k, j, i = review.review("threshold").centre_of(lesion_id)
    reach = [round(10 / spacing) for spacing in review.scan.image.GetSpacing()[:2]]
    brush, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    brush.SetExtent(i - reach[0], i + reach[0], j - reach[1], j + reach[1], k - 1, k + 1)
    brush.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    brush.GetPointData().GetScalars().Fill(1)
    review.nodes.volume.GetIJKToRASMatrix(matrix)
    brush.SetImageToWorldMatrix(matrix)
    mode = slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd
    logic.ModifySegmentByLabelmap(review.nodes.calcium, "RCA", brush, mode, True, False)
    review.scene.RemoveNode(editor)


class Times:
    """Wall and processor time of what is done, by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[tuple[float, float]]] = {}

    def of(self, name: str, action: Callable[[], object]) -> object:
        wall, processor = time.perf_counter(), time.process_time()
        result = action()
        times = (time.perf_counter() - wall, time.process_time() - processor)
        self.taken.setdefault(name, []).append(times)
        return result

    def print(self) -> None:
        print(f"  {'':44s}{'wall ms: median':>16s}{'slowest':>9s}{'processor: median':>19s}{'slowest':>9s}")
        for name, times in self.taken.items():
            columns = [1e3 * f(pair[n] for pair in times) for n in (0, 1) for f in (statistics.median, max)]
            print(f"  {name:44s}{columns[0]:16.1f}{columns[1]:9.1f}{columns[2]:19.1f}{columns[3]:9.1f}")


def timed(name: str, result: ScoreResult) -> None:
    times, rng = Times(), np.random.default_rng(1)
    scan = result.scan
    with tempfile.TemporaryDirectory() as folder:
        report.write_images(Path(folder), result)
        report.write_json(Path(folder) / "scores.json", result, {})
        content = times.of("results read from their folder", lambda: content_of_folder(Path(folder), scan.image, name))
    scene = slicer.vtkMRMLScene()
    volume = mrml.add_volume(scene, scan.image, name)
    nodes = times.of("nodes made", lambda: mrml.add_to_scene(scene, content, volume))
    review = times.of("review begun", lambda: SceneReview(scene, nodes))
    print(f"{name}: {' × '.join(map(str, scan.image.GetSize()))} voxels")
    for method in review.methods:
        found = times.of(f"{method}: first totals", lambda method=method: review.result(method))
        expected = result.methods[method]
        assert (found.total, found.arteries) == (expected.total, expected.arteries)
        voxels = [lesion.voxels for lesion in found.lesions.lesions]
        print(f"  {method}: {len(voxels)} lesions, {sum(voxels)} voxels, the largest {max(voxels, default=0)}")
    for method in review.methods:
        edit_all_ways(review, method, times, rng)
    times.of("nothing was edited", review.refresh)
    times.of("tables updated", review.update_tables)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.mrb"
        times.of("scene written", lambda: scene.WriteToMRB(str(file), None))
        print(f"  scene.mrb: {file.stat().st_size / 1e6:.1f} MB")
    times.print()


def edit_all_ways(review: SceneReview, method: str, times: Times, rng: np.random.Generator) -> None:
    def updated(what: str, action: Callable[[], object]) -> None:
        times.of(f"{method}: {what}", lambda: (action(), review.result(method)))

    before = review.result(method)
    lesions = before.lesions.lesions
    if not lesions:
        return
    largest = max(lesions, key=lambda lesion: lesion.voxels)
    for run in range(RUNS):
        chosen = int(rng.choice([lesion.id for lesion in lesions]))
        artery = Artery(1 + run % 5)
        updated("a lesion given to an artery", lambda n=chosen, a=artery: review.assign(method, [n], a))
        updated("a lesion rejected", lambda n=chosen: review.reject(method, [n]))
        updated("undo", review.undo)
        updated("redo", review.redo)
        updated("undo", review.undo)
        updated("undo", review.undo)
        updated("the largest lesion rejected", lambda: review.reject(method, [largest.id]))
        updated("the largest lesion: undo", review.undo)
        if method == "threshold":
            updated("a stroke of the brush", lambda n=chosen: (painted(review, n), review.refresh()))
        else:
            updated("a slice switched off", lambda: review.switch_slice(largest.slice_indices[0], False))
        updated("undo", review.undo)
        assert review.result(method).total == before.total


def main() -> None:
    slicer.vtkSlicerSegmentationsModuleLogic()
    scan, heart = made_up_scan()
    timed("made up", score_scan(scan, heart=heart, networks=NETWORKS))
    for path in map(Path, sys.argv[1:]):
        timed(path.name, score_scan(read_ct(path), networks=NETWORKS))


if __name__ == "__main__":
    main()
