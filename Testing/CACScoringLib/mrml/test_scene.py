"""Tests of scenes written and read back, nodes converted to images, and segments, on Slicer's own MRML."""

import json
import math
from dataclasses import replace
from pathlib import Path

import handmade_estimates
import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from damaged_files import cut
from labelled_chest import DIRECTIONS, arteries_of, ct_image, labels_of, on_grid_of, rows_of
from saved_scenes import read_mrb

from CACScoringLib.calcium_map.decomposition import (
    Decomposition,
    DecompositionSettings,
    healthy_image,
    on_scan_slices,
)
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import mask_on_scan_grid, same_grid, scan_from_image
from CACScoringLib.core.errors import (
    CTError,
    MaskError,
    NotVolumeError,
    OutputError,
    SliceGeometryError,
    UnreadableError,
)
from CACScoringLib.core.labels import (
    NOT_CORONARY,
    NOT_CORONARY_ID,
    SITE_COLOURS,
    TERRITORIES,
    Artery,
    NonCoronary,
    label_called,
)
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.models.preprocessing import heart_slices
from CACScoringLib.mrml import lesion_segments
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_folder, content_of_result
from CACScoringLib.mrml.segments import segment_mask, voxels_of_segments
from CACScoringLib.report import files as report
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import method_score

CANDIDATES = "Candidates of chest 7.nrrd (130 HU)"
VOXELS = {Artery.LM: 6, Artery.LAD: 8, Artery.UNASSIGNED: 4}


@pytest.fixture
def read_back(result, tmp_path):
    path = tmp_path / "scene.mrb"
    mrml.write_scene(path, result)
    cache = tmp_path / "cache"
    cache.mkdir()
    return read_mrb(path, cache)


def node(scene, kind: str, name: str):
    match = scene.GetFirstNode(name, kind)
    assert match is not None, f"no {kind} {name}"
    return match


class TestSceneReadBack:
    def test_volume_has_the_scans_voxels_geometry_and_window(self, read_back, result):
        volume = node(read_back, "vtkMRMLScalarVolumeNode", "chest 7.nrrd")
        image = mrml.image_of_volume(volume)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), result.scan.hu)
        assert image.GetPixelID() == sitk.sitkInt16
        assert same_grid(image, result.scan.image)
        display = volume.GetDisplayNode()
        assert (display.GetWindow(), display.GetLevel(), bool(display.GetAutoWindowLevel())) == (600, 150, False)
        assert display.GetColorNodeID() == "vtkMRMLColorTableNodeGrey"

    def test_each_artery_has_a_segment_with_lesions_or_without(self, read_back, result):
        calcium = node(read_back, "vtkMRMLSegmentationNode", CANDIDATES)
        segments = calcium.GetSegmentation()
        sites = ["aortic-valve-and-root", "mitral-annulus", "thoracic-aorta", "other-non-coronary"]
        assert list(segments.GetSegmentIDs()) == [*(artery.key for artery in Artery), *sites, NOT_CORONARY_ID]
        assert not segment_mask(calcium, NOT_CORONARY_ID, result.scan.image).any()
        labels = labels_of(result.scan.image)
        for artery in Artery:
            segment = segments.GetSegment(artery.key)
            assert segment.GetName() == f"{artery.key}: {artery.full_name}"
            assert segment.GetColor() == pytest.approx([c / 255 for c in SITE_COLOURS[artery]], abs=1e-3)
            mask = segment_mask(calcium, artery.key, result.scan.image)
            assert mask.sum() == VOXELS.get(artery, 0)
            np.testing.assert_array_equal(mask, labels == artery)
        codes = {Artery.LM: ("29483008", "3227004"), Artery.LAD: ("29483008", "59438005")}
        for artery, expected in {**codes, Artery.UNASSIGNED: ("5540006", "")}.items():
            tag = vtk.reference("")
            assert segments.GetSegment(artery.key).GetTag("TerminologyEntry", tag)
            assert tuple(str(tag).split("~")[n].split("^")[1] for n in (2, 5)) == expected

    def test_score_table(self, read_back, result):
        table = node(read_back, "vtkMRMLTableNode", "Scores of chest 7.nrrd")
        types = {"Method": vtk.vtkStringArray, "Agatston": vtk.vtkDoubleArray, "Lesions": vtk.vtkIntArray}
        for name, kind in types.items():
            assert isinstance(table.GetTable().GetColumnByName(name), kind)
        assert table.GetColumnUnitLabel("Volume") == "mm3"
        rows = {row["Artery"]: row for row in rows_of(table)}
        assert list(rows) == [*(a.key for a in Artery), "total"]
        # LM: two slices of 3 voxels at 250 HU; LAD: two slices of 4 voxels at 480 HU; 2.5 mm slices.
        assert rows["LM"]["Agatston"] == pytest.approx(2 * 3 * 0.825 * 2 * 2.5 / 3)
        assert rows["LAD"]["Agatston"] == pytest.approx(2 * 4 * 0.825 * 4 * 2.5 / 3)
        assert rows["LAD"]["Mass"] == pytest.approx(0.0008 * 480 * 8 * 0.825 * 2.5)
        assert rows["LAD"]["Peak"] == 480
        assert rows["RCA"]["Agatston"] == 0
        assert math.isnan(rows["RCA"]["Peak"])
        assert rows["total"]["Lesions"] == 3


class TestWriteScene:
    def test_patient_name_only_on_request(self, result, tmp_path):
        mrml.write_scene(tmp_path / "anonymous.mrb", result)
        mrml.write_scene(tmp_path / "named.mrb", result, identify=True)
        names = {}
        for kind in ("anonymous", "named"):
            (tmp_path / kind).mkdir()
            scene = read_mrb(tmp_path / f"{kind}.mrb", tmp_path / kind)
            names[kind] = " ".join(scene.GetNthNode(n).GetName() or "" for n in range(scene.GetNumberOfNodes()))
        assert "Doe" not in names["anonymous"]
        assert "Doe^Jane" in names["named"]

    def test_prints_nothing_and_leaves_only_the_scene(self, result, tmp_path, capfd):
        for _ in range(3):
            mrml.write_scene(tmp_path / "scène.mrb", result)
        assert [file.name for file in tmp_path.iterdir()] == ["scène.mrb"]
        assert capfd.readouterr() == ("", "")

    def test_failure_keeps_the_earlier_file(self, result, tmp_path, monkeypatch):
        path = tmp_path / "scene.mrb"
        path.write_bytes(b"earlier")

        class FullDisk(slicer.vtkMRMLScene):
            def WriteToMRB(self, name, *_):  # noqa: N802
                Path(name).write_bytes(b"half")
                return False

        monkeypatch.setattr(slicer, "vtkMRMLScene", FullDisk)
        with pytest.raises(OutputError, match=r"scene\.mrb"):
            mrml.write_scene(path, result)
        assert path.read_bytes() == b"earlier"
        assert list(tmp_path.iterdir()) == [path]


class TestContent:
    def test_folder_gives_the_same_content_as_the_result_unless_damaged(self, result, content, tmp_path):
        (tmp_path / "scores.json").write_text(content.record, encoding="utf-8")
        report.write_images(tmp_path, result)
        read = content_of_folder(tmp_path, content.ct, content.name)
        assert json.loads(read.record) == json.loads(content.record)
        for image in ("heart", "lesions"):
            expected = sitk.GetArrayFromImage(getattr(content, image))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(getattr(read, image)), expected)
        cut(tmp_path / "lesions.nii.gz")
        with pytest.raises(UnreadableError, match=r"lesions\.nii\.gz is truncated.*Score the scan again"):
            content_of_folder(tmp_path, content.ct, content.name)


class TestVolumes:
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
    def test_round_trip_is_exact_and_places_are_slicers(self, scene, direction):
        for pixel_type in (sitk.sitkInt16, sitk.sitkFloat32, sitk.sitkUInt16):
            image = ct_image(direction, pixel_type)
            volume, matrix = mrml.add_volume(scene, image, "CT"), vtk.vtkMatrix4x4()
            back = mrml.image_of_volume(volume)
            assert back.GetPixelID() == image.GetPixelID()
            assert back.GetSpacing() == image.GetSpacing()
            assert back.GetOrigin() == image.GetOrigin()
            assert back.GetDirection() == image.GetDirection()
            np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
            volume.GetIJKToRASMatrix(matrix)
            for index in [(0, 0, 0), (9, 2, 5), (1, 11, 6)]:
                x, y, z = image.TransformIndexToPhysicalPoint(index)
                assert matrix.MultiplyPoint((*index, 1))[:3] == pytest.approx((-x, -y, z), abs=1e-9)
                assert volume.GetImageData().GetScalarComponentAsDouble(*index, 0) == image.GetPixel(index)

    @pytest.mark.parametrize("name", ["nothing", "tilted", "moved"])
    def test_volumes_that_cannot_be_scored_are_named(self, scene, name):
        volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        if name != "nothing":
            mrml.set_image(volume, ct_image())
        if name == "tilted":
            volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0.2, 0, 0, 1)
        if name == "moved":
            transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
            volume.SetAndObserveTransformNodeID(transform.GetID())
        with pytest.raises((NotVolumeError, SliceGeometryError), match=name):
            mrml.image_of_volume(volume)


class TestSegmentations:
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
    def test_result_laid_on_a_volume_of_any_axis_order(self, scene, content, direction):
        # The user's node holds the same voxels in another axis order than the result.
        image = ct_image(direction)
        labels = on_grid_of(image, labels_of(image))
        axial = [sitk.DICOMOrient(x, "LPS") for x in (image, labels, labels != 0)]
        volume = mrml.add_volume(scene, image, "CT")
        window = volume.GetDisplayNode().GetWindow()
        axial_content = replace(content, ct=axial[0], lesions=axial[1], heart=axial[2])
        nodes = mrml.add_to_scene(scene, axial_content, volume)
        assert nodes.volume is volume
        # The labelmap has the node's own grid, so that Segment Editor need not resample it.
        data, grid, expected = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        nodes.calcium.GetBinaryLabelmapRepresentation("LAD", data)
        data.GetImageToWorldMatrix(grid)
        volume.GetIJKToRASMatrix(expected)
        for row in range(3):
            assert [grid.GetElement(row, n) for n in range(4)] == pytest.approx(
                [expected.GetElement(row, n) for n in range(4)], abs=1e-9
            )
        assert volume.GetDisplayNode().GetWindow() == window
        np.testing.assert_array_equal(arteries_of(nodes.calcium, image), labels_of(image))
        np.testing.assert_array_equal(arteries_of(nodes.calcium, axial[0]), sitk.GetArrayFromImage(axial[1]))

    def test_removing_a_node_before_the_end_removes_the_others(self, scene, content):
        volume = mrml.add_volume(scene, content.ct, "CT")
        before = scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode")
        steps = mrml.scene_steps(scene, content, volume)
        for _ in range(2):
            next(steps)
        scene.RemoveNode(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
        with pytest.raises(CTError, match="closed"):
            next(steps)
        assert scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode") == before
        assert scene.IsNodePresent(volume)

    @pytest.mark.parametrize(
        ("name", "label"),
        [("rca", Artery.RCA), ("not-coronary: rejected", NOT_CORONARY), ("Aortic valve", NonCoronary.AORTIC_VALVE)],
    )
    def test_segments_count_by_the_names_that_the_user_sees(self, scene, content, name, label):
        nodes = mrml.add_to_scene(scene, content)
        nodes.calcium.GetSegmentation().GetSegment("LM").SetName(name)
        assert set(np.unique(arteries_of(nodes.calcium, content.ct))) == {0, label, Artery.LAD, Artery.UNASSIGNED}
        nodes.calcium.GetSegmentation().GetSegment("LM").SetName("tumour")
        with pytest.raises(MaskError, match="tumour"):
            arteries_of(nodes.calcium, content.ct)
        with pytest.raises(MaskError, match="Segment_9"):
            segment_mask(nodes.calcium, "Segment_9", content.ct)


@pytest.fixture
def decomposed(result):
    """The result with a calcium map of one voxel, 240 HU, in the LAD's lesion."""
    scan = result.scan.image
    hu = np.zeros(result.scan.hu.shape, np.float32)
    hu[3, 7, 2] = 240.0
    slices = heart_slices(result.scan, result.region.mask)
    decomposed = np.linspace(0, 1, len(slices), dtype=np.float32) >= 0.5
    parts = Decomposition(hu, result.scan.grid, decomposed, DecompositionSettings())
    rules = replace(result.methods["threshold"].rules, threshold_hu=10.0, minimum_area_mm2=0.0)
    lesions = find_lesions(scan, labels_of(scan), rules, hu)
    stated = result.stating(
        methods={**result.methods, "decomposition": method_score("reviewed", rules, lesions)},
        slice_probabilities=(None, 0, 0.2, 0.6, 0.8, 1, None),
        slices_decomposed=tuple(bool(x > 0) for x in on_scan_slices(decomposed.astype(np.float32), slices.grid, scan)),
    )
    return replace(stated, decomposition=parts)


def test_calcium_map_and_healthy_image_lie_over_the_ct(decomposed, tmp_path):
    """Show the same from the result and its folder; the map is transparent without calcium."""
    report.write_json(tmp_path / "scores.json", decomposed.record, {})
    report.write_images(tmp_path, decomposed)
    scan, parts = decomposed.scan.image, decomposed.decomposition
    for content in (content_of_result(decomposed), content_of_folder(tmp_path, scan, "chest 7.nrrd")):
        scene = slicer.vtkMRMLScene()
        nodes = mrml.add_to_scene(scene, content)
        healthy = healthy_image(scan, parts.image())
        for node, image in ((nodes.calcium_map, parts.image()), (nodes.healthy, healthy)):
            cropped = mrml.image_of_volume(node)
            start = image.TransformPhysicalPointToIndex(cropped.GetOrigin())
            part = image[[slice(at, at + n) for at, n in zip(start, cropped.GetSize(), strict=True)]]
            assert same_grid(cropped, part)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(cropped), sitk.GetArrayFromImage(part))
            heart_size = sitk.GetArrayViewFromImage(content.heart).sum()
            assert heart_size <= cropped.GetNumberOfPixels() < scan.GetNumberOfPixels()
            assert node.GetAttribute(mrml.DERIVED_ATTRIBUTE) == "1"
        display = nodes.calcium_map.GetDisplayNode()
        assert display.GetApplyThreshold()
        assert 0 < display.GetLowerThreshold() < 10
        arteries = arteries_of(nodes.map_lesions, scan)
        assert np.argwhere(arteries).tolist() == [[3, 7, 2]]
        assert arteries[3, 7, 2] == Artery.LAD
    mrml.write_scene(tmp_path / "scene.mrb", decomposed)
    assert (tmp_path / "scene.mrb").stat().st_size > 1000


def test_slices_of_the_map_state_their_decomposition(decomposed):
    scene = slicer.vtkMRMLScene()
    nodes = mrml.add_to_scene(scene, content_of_result(decomposed))
    rows = rows_of(nodes.slices)
    assert [row["Slice"] for row in rows] == list(range(7))
    assert [row["Probability"] for row in rows[1:6]] == pytest.approx([0, 0.2, 0.6, 0.8, 1], abs=1e-3)
    assert math.isnan(rows[0]["Probability"])
    assert rows[3]["Position"] == pytest.approx(-204.125 + 3 * 2.5)
    used = [row["Used"] for row in rows]
    assert used == [row["Decomposed"] for row in rows]
    assert used[3:6] == [1, 1, 1]
    assert used[0] == used[6] == 0


def test_a_slice_reached_by_a_neighbours_map_counts_as_decomposed(decomposed):
    """Mark the slice as decomposed, so that lesions from resampling can be switched off too."""
    content = content_of_result(decomposed.stating(slices_decomposed=(False,) * 7))
    assert [row.k for row in content.slices if row.decomposed] == [3]
    assert [row.k for row in content.slices if row.used] == [3]


class TestRecord:
    """The text node that holds `scores.json` refers to all other nodes."""

    def test_survives_saving(self, decomposed, tmp_path):
        saliency = sitk.Cast(decomposed.scan.image > 100, sitk.sitkFloat32)
        territories = (decomposed.scan.hu > 100) * np.uint8(TERRITORIES.index("LAD"))
        result = replace(
            decomposed,
            region=replace(decomposed.region, pericardium=decomposed.region.mask),
            estimates=(handmade_estimates.vessels(7, saliency=saliency),),
            territory_labels=territories,
        )
        mrml.write_scene(tmp_path / "scene.mrb", result)
        (tmp_path / "cache").mkdir()
        scene = read_mrb(tmp_path / "scene.mrb", tmp_path / "cache")
        (record,) = mrml.records_in(scene)
        nodes = mrml.nodes_of_record(scene, record)
        names = [getattr(nodes, name).GetName() for name in mrml._NODE_NAMES]
        assert len(set(names)) == 13
        assert all(name.endswith("chest 7.nrrd") or name == CANDIDATES for name in names)
        document = json.loads(record.GetText())
        assert document["methods"]["threshold"]["total"]["lesions"] == 3
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        assert hierarchy.GetItemName(nodes.folder) == "Calcium score of chest 7.nrrd"
        for segmentation in (nodes.calcium, nodes.map_lesions):
            assert segmentation.GetNodeReference(mrml.HEART_ROLE) is nodes.heart
            assert segmentation.GetNodeReference(mrml.CALCIUM_MAP_ROLE) is nodes.calcium_map
            assert segmentation.GetNodeReference(mrml.HEALTHY_ROLE) is nodes.healthy
            assert segmentation.GetAttribute(mrml.REVIEWED_ATTRIBUTE) == "1"

    def test_names_missing_nodes(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        assert mrml.nodes_of_record(scene, nodes.record).calcium_map is None
        scene.RemoveNode(nodes.heart)
        with pytest.raises(UnreadableError, match="no longer holds its heart"):
            mrml.nodes_of_record(scene, nodes.record)


class TestTerminology:
    def test_slicer_reads_the_terminology(self):
        file = Path(mrml.__file__).parents[2] / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
        logic = slicer.vtkSlicerTerminologiesModuleLogic()
        assert logic.LoadTerminologyFromFile(str(file)) == lesion_segments.TERMINOLOGY
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(lesion_segments.site_terminology(Artery.LAD), entry)
        assert entry.GetTypeObject().GetCodeValue() == "29483008"
        assert entry.GetRegionObject().GetCodeValue() == "59438005"


def save_segmentation(segmentation, path):
    storage = segmentation.GetScene().AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.WriteData(segmentation)
    return path


def tag_of(segment) -> str:
    tag = vtk.reference("")
    assert segment.GetTag("TerminologyEntry", tag)
    return str(tag)


def test_territories_are_a_segmentation_that_is_hidden_at_first(scene):
    result = heart_with_territories.score()
    nodes = mrml.add_to_scene(scene, content_of_result(result))
    segments = nodes.territories.GetSegmentation()
    assert [segments.GetSegment(key).GetName() for key in segments.GetSegmentIDs()] == list(TERRITORIES[1:])
    display = nodes.territories.GetDisplayNode()
    assert not display.GetVisibility()
    assert not display.GetVisibility2DFill()
    valve = segment_mask(nodes.territories, "aortic-valve-and-root", result.scan.image)
    expected = result.territory_labels == TERRITORIES.index("aortic valve and root")
    np.testing.assert_array_equal(valve, expected)
    aorta = segments.GetSegment("ascending-aorta")
    assert "SCT^54247002^" in tag_of(aorta)


def test_non_coronary_calcium_has_segments(scene, tmp_path):
    result = heart_with_territories.score()
    nodes = mrml.add_to_scene(scene, content_of_result(result))
    segments = nodes.calcium.GetSegmentation()
    codes = {"aortic-valve-and-root": "34202007", "mitral-annulus": "65197004", "thoracic-aorta": "113262008"}
    for site in NonCoronary:
        segment = segments.GetSegment(lesion_segments.segment_id(site))
        assert segment.GetName() == site.full_name
        assert segment.GetColor() == pytest.approx([c / 255 for c in SITE_COLOURS[site]], abs=1e-3)
        mask = segment_mask(nodes.calcium, lesion_segments.segment_id(site), result.scan.image)
        np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(report.site_labels(result)) == site)
        code = codes.get(lesion_segments.segment_id(site), "")
        assert "SCT^5540006^Calcium" in tag_of(segment)
        assert (f"~SCT^{code}^" if code else "master list~^^~^^") in tag_of(segment)
    labelled = voxels_of_segments(nodes.calcium, result.scan.image, label_called)
    assert set(labelled.values.tolist()) == set(heart_with_territories.SITES)
    rows = {r["Artery"]: r["Agatston"] for r in rows_of(nodes.scores) if r["Method"] == "non_coronary"}
    assert rows == pytest.approx({"aortic_valve": 128, "mitral_annulus": 96, "thoracic_aorta": 96, "other": 0})
    saved = read_lesion_labels(save_segmentation(nodes.calcium, tmp_path / "sites.seg.nrrd"))
    on_scan, _ = mask_on_scan_grid(saved, result.scan, "labels")
    np.testing.assert_array_equal(on_scan, sitk.GetArrayFromImage(report.site_labels(result)))


def test_a_segmentation_saved_by_slicer_is_read_by_its_segments_names(scene, content, tmp_path):
    """Ignore the label values of a .seg.nrrd, which number its segments rather than arteries."""
    calcium = mrml.add_to_scene(scene, content).calcium
    for name in ("LM", NOT_CORONARY_ID):
        calcium.GetSegmentation().RemoveSegment(name)
    calcium.GetSegmentation().SeparateSegmentLabelmap("LAD")
    calcium.GetSegmentation().CollapseBinaryLabelmaps(True)
    saved = save_segmentation(calcium, tmp_path / "edited.seg.nrrd")
    values = set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(saved)))) - {0}
    assert values != {int(Artery.LAD), int(Artery.UNASSIGNED)}
    labels, _ = mask_on_scan_grid(read_lesion_labels(saved), scan_from_image(content.ct, Acquisition("t")), "labels")
    expected = labels_of(content.ct)
    expected[expected == Artery.LM] = 0
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("separate", [False, True])
def test_an_empty_segmentation_saved_by_slicer_means_no_calcium(scene, content, tmp_path, separate):
    """Read the single voxel that Slicer saves if no segment has an extent."""
    calcium = mrml.add_to_scene(scene, content).calcium
    collection = calcium.GetSegmentation()
    for segment_id in collection.GetSegmentIDs():
        if separate:
            collection.SeparateSegmentLabelmap(segment_id)
        slicer.vtkSlicerSegmentationsModuleLogic.ClearSegment(calcium, segment_id)
    saved = save_segmentation(calcium, tmp_path / "empty.seg.nrrd")
    assert sitk.ReadImage(saved).GetSize() == ((1, 1, 1) if separate else content.ct.GetSize())
    scan = scan_from_image(content.ct, Acquisition("t"))
    labels, _ = mask_on_scan_grid(read_lesion_labels(saved), scan, "lesion label map", may_be_empty=True)
    assert labels.shape == scan.hu.shape
    assert not labels.any()
