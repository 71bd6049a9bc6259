"""Test annotations: saved with every key press, read back unchanged, and not lost by errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from chest_ct import write_ct
from images import image_of

from CACScoringLib.core.errors import ProjectError, ProjectWriteError
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotation_files import SliceAnnotations, SliceLabel
from CACTrainingLib.project.project import NewScan, Project

VISIBLE, NOT_VISIBLE, UNSURE = SliceLabel.VISIBLE, SliceLabel.NOT_VISIBLE, SliceLabel.UNSURE


@pytest.fixture
def slices(tmp_path):
    return SliceAnnotations(tmp_path / "Anna" / "slices.jsonl")


@pytest.fixture
def project(tmp_path):
    ct = tmp_path / "ct.nii.gz"
    write_ct(ct)
    project = Project.create(tmp_path / "project")
    project.add([NewScan("ct", "p", ct)])
    return project


def reopened(slices: SliceAnnotations) -> SliceAnnotations:
    return SliceAnnotations(slices.file)


def label_map(*voxels: int, shape: tuple[int, int, int] = (4, 5, 6)) -> sitk.Image:
    """Make a label map with label 2 at flat indices."""
    array = np.zeros(shape, np.uint8)
    array.ravel()[list(voxels)] = 2
    return image_of(array, (0.5, 0.5, 3.0), (-10.0, 5.0, 100.25))


class TestSlices:
    @pytest.mark.parametrize("reopen", [False, True])
    def test_several_undos_go_back_step_by_step(self, slices, reopen):
        states = []
        for k, label, seconds in [(1, VISIBLE, 1.0), (2, UNSURE, 2.0), (1, NOT_VISIBLE, 3.0), (1, UNSURE, 4.0)]:
            states.append((dict(slices.labels), dict(slices.seconds)))
            slices.set(k, label, seconds)
        for k in (1, 1, 2, 1):
            slices = reopened(slices) if reopen else slices
            assert slices.undo() == k
            assert (slices.labels, slices.seconds) == states.pop()
            assert reopened(slices).labels == slices.labels
        assert not slices.can_undo
        assert slices.undo() is None

    @pytest.mark.parametrize("torn_line", [b'{"k": 3, "label": "vis', b'{"k": 3, "label": "visible"}', b"\0" * 40])
    def test_a_torn_last_line_is_left_out_and_then_cut_off(self, slices, torn_line):
        slices.set(1, VISIBLE)
        slices.set(2, VISIBLE)
        with slices.file.open("ab") as file:
            file.write(torn_line)
        torn = reopened(slices)
        assert torn.labels == {1: VISIBLE, 2: VISIBLE}
        assert "the last" in torn.warnings[0]
        assert slices.file.read_bytes().endswith(torn_line)
        torn.set(4, UNSURE)
        assert (reopened(slices).labels, reopened(slices).warnings) == ({1: VISIBLE, 2: VISIBLE, 4: UNSURE}, ())

    @pytest.mark.parametrize(
        "line",
        [
            *(b"\xff\xfe", b"[]", b'{"k": true, "label": "visible"}', b'{"k": 2, "label": []}'),
            b'{"k": -2, "label": "visible"}',
            *(b'{"k": 2, "label": "visible", "seconds": NaN}', b"[" * 100_000),
        ],
    )
    def test_a_damaged_line_costs_only_itself(self, slices, line):
        for k in (1, 2, 3):
            slices.set(k, VISIBLE)
        lines = slices.file.read_bytes().splitlines()
        lines[1] = line
        slices.file.write_bytes(b"\n".join([*lines, b""]))
        damaged = reopened(slices)
        assert damaged.labels == {1: VISIBLE, 3: VISIBLE}
        assert "left out: 2." in damaged.warnings[0]
        assert str(slices.file) in damaged.warnings[0]
        assert [damaged.undo(), damaged.undo(), damaged.undo()] == [3, 1, None]

    def test_two_windows_of_one_annotator_do_not_overwrite_each_other(self, slices):
        second_window = reopened(slices)
        slices.set(1, VISIBLE)
        second_window.set(2, UNSURE)
        assert second_window.labels == {1: VISIBLE, 2: UNSURE}
        assert slices.undo() == 2
        assert reopened(slices).labels == slices.labels == {1: VISIBLE}


class TestFullDisk:
    """A full disk, simulated by the system's limit of file sizes."""

    @pytest.fixture
    def limited(self):
        """Function that limits the size of files in bytes."""
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_a_label_that_does_not_fit_changes_nothing(self, slices, limited):
        """The disk is full in the middle of a line."""
        for k in range(5):
            slices.set(k, VISIBLE)
        size = slices.file.stat().st_size
        limited(size + 30)
        with pytest.raises(ProjectWriteError, match="The label of slice 5 was not saved"):
            slices.set(5, UNSURE)
        assert (slices.file.stat().st_size, len(slices.labels)) == (size, 5)
        limited(2**30)
        slices.set(5, UNSURE)
        assert len(reopened(slices).labels) == 6

    def test_a_mask_that_does_not_fit_leaves_the_earlier_one(self, project, limited):
        annotations.write_mask(project, "0001", "Anna", "heart", label_map(1))
        noise = np.random.default_rng(0).integers(0, 6, (80, 120, 120), np.uint8)
        limited(100_000)
        with pytest.raises(ProjectWriteError, match=r"heart.nii.gz was not saved"):
            annotations.write_mask(project, "0001", "Anna", "heart", sitk.GetImageFromArray(noise))
        assert sitk.GetArrayFromImage(annotations.read_annotated_mask(project, "0001", "Anna", "heart")).sum() == 2
        folder = project.scan_folder("0001") / "annotators" / "Anna"
        assert [path.name for path in folder.iterdir()] == ["heart.nii.gz"]


class TestMasks:
    def test_masks_are_read_back_with_their_geometry(self, project):
        assert annotations.read_annotated_mask(project, "0001", "Anna", "regions") is None
        image = label_map(3, 50)
        annotations.write_mask(project, "0001", "Anna", "regions", image)
        mask = annotations.read_annotated_mask(project, "0001", "Anna", "regions")
        assert mask.GetPixelID() == sitk.sitkUInt8
        assert (sitk.GetArrayFromImage(mask) == sitk.GetArrayFromImage(image)).all()
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, geometry)() == pytest.approx(getattr(image, geometry)())


class TestAnnotators:
    @pytest.mark.parametrize("name", ["A. B-C_2", "7", " Anna\n", "x" * 40, "truthful", "console"])
    def test_names_that_can_be_folders(self, name):
        assert annotations.check_annotator(name) == name.strip()

    @pytest.mark.parametrize("name", ["", "../x", "Änna", "x" * 41, "Truth", "NUL.txt", "Anna.", "-a"])
    def test_unsuitable_names_are_refused_with_the_rule(self, project, name):
        with pytest.raises(ProjectError, match=r"letters .*digits"):
            annotations.check_annotator(name)
        with pytest.raises(ProjectError):
            annotations.slice_annotations(project, "0001", name)

    def test_capitals_make_no_other_annotator(self, project):
        annotations.slice_annotations(project, "0001", "Anna").set(3, VISIBLE)
        annotations.slice_annotations(project, "0001", "ANNA").set(4, VISIBLE)
        annotations.write_mask(project, "0001", "anna", "heart", label_map(1))
        assert annotations.annotators(project, "0001") == ["Anna"]
        assert set(annotations.slice_annotations(project, "0001", "anna").labels) == {3, 4}


def test_unknown_slices_of_the_truth_have_no_label(project):
    slices = [{"k": 4, "visible": True}, {"k": 5, "visible": False}, {"k": 6, "visible": None}]
    truth, ct = project.folder / "truth.json", project.folder / "digital.nii.gz"
    truth.write_text(json.dumps({"slices": slices}), encoding="utf-8")
    write_ct(ct, 1)
    (digital,) = project.add([NewScan("d", "d", ct, source="digital", truth=truth)]).added
    assert annotations.truth_labels(digital) == {4: VISIBLE, 5: NOT_VISIBLE}
    assert annotations.truth_labels(project.scan("0001")) == {}


def test_reading_writes_nothing(project):
    annotations.slice_annotations(project, "0001", "Anna").set(3, VISIBLE)
    before = sorted(Path(project.folder).rglob("*"))
    opened = Project.open(project.folder)
    annotations.slice_annotations(opened, "0001", "Anna")
    annotations.slice_annotations(opened, "0001", "Ben")
    annotations.read_annotated_mask(opened, "0001", "Ben", "heart")
    assert sorted(Path(project.folder).rglob("*")) == before
