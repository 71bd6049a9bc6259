"""How long the segment editor effects hold Slicer up, on a scan of 512 × 512 × 150 voxels.

Run from the repository's root, on a machine that is otherwise idle:

    export QT_QPA_PLATFORM=offscreen
    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/effect_speed.py

The scan (seeded) has tissue with noise, a heart of 12 cm, 40 calcified balls in it, and a spine of 500 HU that leaks
when it is clicked. The effects are driven with mouse and key events in the desktop host; a time is that of one event
until the segmentation's voxels have changed, without drawing the views and without the library's loading, once a
session, when an effect is switched on. CPU is the thread's own time: on a busy machine the two differ. Goal: no event
above 100 ms.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).parents[2]
SIZE = (512, 512, 150)
SPACING_MM = (0.5, 0.5, 1.0)
RUNS = 15
GOAL_MS = 100.0


def made_up_scan(seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """HU, heart, calcium map, [k, j, i]; and the middles of the lesions, k, j, i."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(40, 20, SIZE[::-1]).astype(np.int16)
    k, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    heart = ((k - 75.0) * 1.0) ** 2 + ((j - 230.0) * 0.5) ** 2 + ((i - 256.0) * 0.5) ** 2 <= 60.0**2
    hu[:, 400:470, 220:300] = 500
    calcium = np.zeros(hu.shape, np.float32)
    middles = []
    while len(middles) < 40:
        middle = rng.integers((30, 140, 170), (120, 320, 340))
        if not heart[tuple(middle)] or any(np.abs(middle - other).max() < 24 for other in middles):
            continue
        middles.append(middle)
        box = tuple(slice(n - 10, n + 11) for n in middle)
        dk, dj, di = np.ogrid[-10:11, -10:11, -10:11]
        inside = dk**2 + (0.5 * dj) ** 2 + (0.5 * di) ** 2 <= rng.uniform(1.0, 4.5) ** 2
        hu[box][inside] += 300
        calcium[box][inside] = 300
    return hu, heart, calcium, middles


class Stopwatch:
    """Wall and CPU times by what was done, ms."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}

    def run(self, name: str, action, *arguments):
        wall, cpu = time.perf_counter(), time.thread_time()
        value = action(*arguments)
        self.times.setdefault(name, []).append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3))
        return value

    def report(self) -> None:
        print(f"{'':48s}{'median':>8s}{'longest':>9s}{'longest CPU':>13s}")
        for name, times in self.times.items():
            walls, cpus = zip(*times, strict=True)
            note = "" if max(cpus) < GOAL_MS else "  above the goal"
            print(f"{name:48s}{statistics.median(walls):8.1f}{max(walls):9.1f}{max(cpus):13.1f} ms{note}")


class Desk:
    """Segment Editor in the desktop host, on the scan."""

    def __init__(self, monkeypatch) -> None:
        import slicer

        import desktop_host
        from CACScoringLib.mrml import lesion_segments
        from CACScoringLib.mrml import scene as mrml

        desktop_host.install(monkeypatch)
        for name in ("Lesion", "Region", "Decompose"):
            monkeypatch.syspath_prepend(str(ROOT / "CACScoring" / f"SegmentEditorCAC{name}"))
            desktop_host.load(monkeypatch, f"SegmentEditorCAC{name}")
        slicer.app.startupCompleted.emit()
        hu, heart, calcium, self.middles = made_up_scan()
        self.grid = sitk.GetImageFromArray(hu)
        self.grid.SetSpacing(SPACING_MM)
        self.volume, calcium_map = self._volume(hu, "CT"), self._volume(calcium, "Calcium map")
        self.segmentation, heart_node = self._segmentation("Lesions"), self._segmentation("Heart")
        for label in range(1, 8):
            lesion_segments.add_lesion_segment(self.segmentation, label)
        heart_node.GetSegmentation().AddEmptySegment(lesion_segments.HEART_ID, "Heart")
        mask = heart.astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, heart_node, lesion_segments.HEART_ID, self.volume)
        self.segmentation.SetNodeReferenceID(mrml.HEART_ROLE, heart_node.GetID())
        self.segmentation.SetNodeReferenceID(mrml.CALCIUM_MAP_ROLE, calcium_map.GetID())
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor.setMRMLSegmentEditorNode(self.node)
        self.editor.setSegmentationNode(self.segmentation)
        self.editor.setSourceVolumeNode(self.volume)
        self.editor.setCurrentSegmentID("LAD")
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.view = slicer.app.layoutManager().sliceWidget("Red")
        self.interactor = self.view.sliceView().interactor()
        self.watch = Stopwatch()

    def _volume(self, values: np.ndarray, name: str):
        import slicer

        from CACScoringLib.mrml import scene as mrml

        image = sitk.GetImageFromArray(values)
        image.CopyInformation(self.grid)
        return mrml.add_volume(slicer.mrmlScene, image, name)

    def _segmentation(self, name: str):
        import slicer

        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        return node

    def point_at(self, middle: np.ndarray, right: int = 0) -> None:
        """Put the mouse on a voxel [k, j, i], or so many voxels to the right of it, in its slice."""
        import vtk

        k, j, i = (float(n) for n in middle)
        x, y, z = self.grid.TransformContinuousIndexToPhysicalPoint((i + right, j, k))
        slice_node = self.view.mrmlSliceNode()
        slice_node.JumpSliceByOffsetting(-x, -y, z)
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(slice_node.GetXYToRAS(), inverse)
        px, py, _z, _one = inverse.MultiplyPoint((-x, -y, z, 1.0))
        self.interactor.SetEventInformation(round(px), round(py), 0, 0)

    def event(self, name: str, kind: str, middle: np.ndarray, right: int = 0) -> None:
        self.point_at(middle, right)
        self.watch.run(name, self.interactor.InvokeEvent, f"{kind}Event")

    def use(self, name: str, what: str):
        self.watch.run(what, self.editor.setActiveEffectByName, name)
        return self.editor.activeEffect().self()

    def click(self, note: str, middle: np.ndarray) -> None:
        self.event("Lesion: hover", "MouseMove", middle)
        self.event("Lesion: press", "LeftButtonPress", middle)
        self.event(f"Lesion: release, which adds{note}", "LeftButtonRelease", middle)


def lesion(desk: Desk) -> None:
    import slicer

    # The first time loads the library.
    desk.use("CAC Lesion", "Lesion: switched on for the first time")
    desk.editor.setActiveEffect(None)
    effect = desk.use("CAC Lesion", "Lesion: switched on")
    for middle in desk.middles[:RUNS]:
        desk.click("", middle)
    for middle in desk.middles[RUNS : RUNS + 5]:
        desk.event("Lesion: press", "LeftButtonPress", middle)
        for right in (8, 16, 24):
            desk.event("Lesion: drag", "MouseMove", middle, right)
        desk.event("Lesion: release, which adds", "LeftButtonRelease", middle, 24)
    for middle in desk.middles[:RUNS]:
        desk.event("Lesion: hover", "MouseMove", middle)
        desk.interactor.SetKeySym("x")
        desk.event("Lesion: X, which rejects", "KeyPress", middle)
    effect.heartCheckBox.setChecked(False)
    for middle in desk.middles[:RUNS]:
        desk.event("Lesion: hover over bone, which leaks", "MouseMove", np.array([middle[0], 440, 260]))
    effect.heartCheckBox.setChecked(True)
    desk.node.SetSourceVolumeIntensityMask(True)
    desk.node.SetSourceVolumeIntensityMaskRange(0, 3000)
    desk.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    for middle in desk.middles[25:]:
        desk.click(", masked by segments and HU", middle)
    desk.node.SetSourceVolumeIntensityMask(False)
    desk.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    for _ in range(RUNS):
        desk.watch.run("undo", desk.editor.undo)


def region(desk: Desk) -> None:
    effect = desk.use("CAC Region", "Region: switched on")
    for ball in (False, True):
        effect.sphereCheckBox.setChecked(ball)
        for middle in desk.middles[:RUNS]:
            desk.event("Region: press", "LeftButtonPress", middle)
            for right in (10, 20, 30):
                desk.event("Region: move of the brush while painting", "MouseMove", middle, right)
            desk.event("Region: release, which paints the stroke", "LeftButtonRelease", middle, 30)


def decompose(desk: Desk) -> None:
    effect = desk.use("CAC Decompose", "Decompose: switched on, with its preview")
    for floor in range(10, 10 + RUNS):
        effect.floorSpinBox.setValue(floor)
        desk.watch.run("Decompose: preview at another floor", effect.updatePreview)
    desk.watch.run("Decompose: apply to the painted region", effect.onApply)
    effect.shownButton.setChecked(True)
    for middle in desk.middles[:RUNS]:
        desk.point_at(middle)
        desk.watch.run("Decompose: preview of the visible slice", effect.updatePreview)
    desk.watch.run("Decompose: apply to the visible slice", effect.onApply)
    desk.editor.setActiveEffect(None)


def main() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        desk = Desk(monkeypatch)
        for effect in (lesion, region, decompose):
            effect(desk)
        print(f"{'×'.join(map(str, SIZE))} voxels, 40 lesions, 7 segments")
        desk.watch.report()


if __name__ == "__main__":
    main()
