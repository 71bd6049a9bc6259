"""Scenes written, read back node by node, and nodes turned back into images, on Slicer's own MRML."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from CACScoringLib import mrml, report
from CACScoringLib.ct import (
    Acquisition,
    MaskError,
    NotVolumeError,
    SliceGeometryError,
    UnreadableError,
    mask_on_scan_grid,
    scan_from_image,
)
from CACScoringLib.decomposition import Decomposition, DecompositionSettings
from CACScoringLib.lesions import Artery, ScoringRules, find_lesions
from CACScoringLib.output import OutputError
from CACScoringLib.pictures import ARTERY_COLOURS
from CACScoringLib.reading import read_lesion_labels
from CACScoringLib.scene_content import content_of_folder, content_of_result
from CACScoringLib.scores import score_arteries, score_lesions

OBLIQUE = tuple(
    float(x) for x in sitk.Euler3DTransform((0, 0, 0), math.radians(7), math.radians(-4), math.radians(11)).GetMatrix()
)
DIRECTIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "sagittal, upside down": (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": OBLIQUE,
}
VOXELS = {Artery.LM: 6, Artery.LAD: 8, Artery.UNASSIGNED: 4}


def ct_image(direction=DIRECTIONS["axial"], pixel_type=sitk.sitkInt16) -> sitk.Image:
    values = np.random.default_rng(5).integers(-1000, 90, (7, 12, 10)).astype(np.int16)
    values[0, 0, 0] = 1400
    values[2:4, 4, 3:6] = 250  # left main, 6 voxels
    values[3:5, 7:9, 2:4] = 480  # left anterior descending, 8 voxels
    values[5, 2:4, 7:9] = 135  # unassigned, 4 voxels
    image = sitk.Cast(sitk.GetImageFromArray(values), pixel_type)
    image.SetSpacing((0.75, 1.1, 2.5))
    image.SetOrigin((-31.25, 12.5, -204.125))
    image.SetDirection(direction)
    return image


def labels_of(image: sitk.Image) -> np.ndarray:
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[2:4, 4, 3:6] = Artery.LM
    labels[3:5, 7:9, 2:4] = Artery.LAD
    labels[5, 2:4, 7:9] = Artery.UNASSIGNED
    return labels


def on_grid_of(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    labels = sitk.GetImageFromArray(values.astype(np.uint8))
    labels.CopyInformation(image)
    return labels


@pytest.fixture
def result():
    """A result whose numbers are known on paper, with a patient's name in its headers."""
    from CACScoringLib.pipeline import MethodResult, ScoreResult

    acquisition = Acquisition("NRRD", patient_name="Doe^Jane")
    scan = scan_from_image(ct_image(), acquisition, Path("/scans/chest 7.nrrd"))
    rules = ScoringRules(calibration_mg_per_mm3_hu=0.0008)
    lesions = find_lesions(scan.image, labels_of(scan.image), rules)
    spacing = scan.image.GetSpacing()
    total = score_lesions(lesions.lesions, spacing, rules)
    method = MethodResult(True, rules, lesions, total, score_arteries(lesions.lesions, spacing, rules))
    inside = np.zeros(labels_of(scan.image).shape, np.uint8)
    inside[1:6, 1:10, 1:9] = 1
    mask = on_grid_of(scan.image, inside)
    region = SimpleNamespace(mask=mask, source="given")
    return ScoreResult(scan, region, None, {"threshold": method}, None, ())


@pytest.fixture
def content(result):
    return content_of_result(result)


@pytest.fixture
def scene():
    # The module logic makes the conversion rules of segmentations known, as the application does on start.
    slicer.vtkSlicerSegmentationsModuleLogic()
    return slicer.vtkMRMLScene()


def read_scene(path: Path, cache: Path) -> slicer.vtkMRMLScene:
    """Read an .mrb into a fresh scene. The scene keeps alive what reads it."""
    slicer.vtkSlicerSegmentationsModuleLogic()
    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application)
    remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    manager.SetMRMLApplicationLogic(application)
    manager.SetMRMLScene(scene)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    assert scene.ReadFromMRB(str(path), True)
    scene.keep_alive = (application, remote, manager)
    return scene


@pytest.fixture
def read_back(result, tmp_path):
    path = tmp_path / "scene.mrb"
    mrml.write_scene(path, result)
    cache = tmp_path / "cache"
    cache.mkdir()
    return read_scene(path, cache)


def node(scene, kind: str, name: str):
    found = scene.GetFirstNode(name, kind)
    assert found is not None, f"no {kind} {name}"
    return found


class TestSceneReadBack:
    def test_volume_has_the_scans_voxels_geometry_and_window(self, read_back, result):
        volume = node(read_back, "vtkMRMLScalarVolumeNode", "chest 7.nrrd")
        image = mrml.image_of_volume(volume)
        original = result.scan.image
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), result.scan.hu)
        assert image.GetPixelID() == sitk.sitkInt16
        for corner in [(0, 0, 0), (9, 0, 0), (0, 11, 0), (0, 0, 6)]:
            expected = original.TransformIndexToPhysicalPoint(corner)
            assert image.TransformIndexToPhysicalPoint(corner) == pytest.approx(expected, abs=1e-9)
        display = volume.GetDisplayNode()
        assert (display.GetWindow(), display.GetLevel(), bool(display.GetAutoWindowLevel())) == (600, 150, False)
        assert display.GetColorNodeID() == "vtkMRMLColorTableNodeGrey"

    def test_each_artery_with_lesions_has_a_segment(self, read_back, result):
        calcium = node(read_back, "vtkMRMLSegmentationNode", "Calcium of chest 7.nrrd")
        segments = calcium.GetSegmentation()
        assert sorted(segments.GetSegmentIDs()) == ["LAD", "LM", "unassigned"]
        labels = labels_of(result.scan.image)
        for artery, voxels in VOXELS.items():
            segment = segments.GetSegment(artery.key)
            assert segment.GetName() == f"{artery.key}: {artery.full_name}"
            assert segment.GetColor() == pytest.approx([c / 255 for c in ARTERY_COLOURS[artery]], abs=1e-3)
            mask = mrml.segment_mask(calcium, artery.key, result.scan.image)
            assert mask.sum() == voxels
            np.testing.assert_array_equal(mask, labels == artery)

    @pytest.mark.parametrize(
        ("artery", "type_code", "region_code"),
        [
            (Artery.LM, "29483008", "3227004"),
            (Artery.LAD, "29483008", "59438005"),
            (Artery.UNASSIGNED, "5540006", ""),
        ],
    )
    def test_segments_carry_snomed_codes(self, read_back, artery, type_code, region_code):
        calcium = node(read_back, "vtkMRMLSegmentationNode", "Calcium of chest 7.nrrd")
        tag = vtk.reference("")
        assert calcium.GetSegmentation().GetSegment(artery.key).GetTag("TerminologyEntry", tag)
        parts = str(tag).split("~")
        assert len(parts) == 7
        assert [parts[i].split("^")[1] for i in (2, 5)] == [type_code, region_code]

    def test_heart(self, read_back, result):
        heart = node(read_back, "vtkMRMLSegmentationNode", "Heart of chest 7.nrrd")
        mask = mrml.segment_mask(heart, mrml.HEART_ID, result.scan.image)
        np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(result.heart.mask) != 0)
        assert not heart.GetDisplayNode().GetVisibility2DFill()
        assert heart.GetDisplayNode().GetVisibility2DOutline()

    def test_segmentations_refer_to_the_volume(self, read_back):
        volume = node(read_back, "vtkMRMLScalarVolumeNode", "chest 7.nrrd")
        for name in ("Heart of chest 7.nrrd", "Calcium of chest 7.nrrd"):
            segmentation = node(read_back, "vtkMRMLSegmentationNode", name)
            role = segmentation.GetReferenceImageGeometryReferenceRole()
            assert segmentation.GetNodeReference(role) is volume

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

    def test_lesion_table(self, read_back):
        rows = rows_of(node(read_back, "vtkMRMLTableNode", "Lesions of chest 7.nrrd"))
        assert [row["Artery"] for row in rows] == ["LM", "LAD", "unassigned"]
        assert [row["Lesion"] for row in rows] == [1, 2, 3]
        assert [row["Slices"] for row in rows] == ["2, 3", "3, 4", "5"]
        assert rows[1]["Area × weight"] == pytest.approx(2 * 4 * 0.825 * 4)

    def test_hierarchy_holds_all_in_one_folder(self, read_back):
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(read_back)
        folder = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), "Calcium score of chest 7.nrrd")
        children = vtk.vtkIdList()
        hierarchy.GetItemChildren(folder, children)
        names = {hierarchy.GetItemDataNode(children.GetId(n)).GetName() for n in range(children.GetNumberOfIds())}
        assert names == {
            "chest 7.nrrd",
            *(f"{kind} of chest 7.nrrd" for kind in ("Heart", "Calcium", "Scores", "Lesions")),
        }

    def test_views_show_the_volume(self, read_back):
        volume = node(read_back, "vtkMRMLScalarVolumeNode", "chest 7.nrrd")
        for name in ("Red", "Green", "Yellow"):
            assert (
                read_back.GetSingletonNode(name, "vtkMRMLSliceCompositeNode").GetBackgroundVolumeID() == volume.GetID()
            )


def rows_of(table: slicer.vtkMRMLTableNode) -> list[dict]:
    columns = [table.GetTable().GetColumn(n) for n in range(table.GetNumberOfColumns())]
    return [{c.GetName(): c.GetValue(row) for c in columns} for row in range(table.GetNumberOfRows())]


class TestWriteScene:
    def test_patient_name_only_on_request(self, result, tmp_path):
        mrml.write_scene(tmp_path / "anonymous.mrb", result)
        mrml.write_scene(tmp_path / "named.mrb", result, identify=True)
        names = {}
        for kind in ("anonymous", "named"):
            (tmp_path / kind).mkdir()
            scene = read_scene(tmp_path / f"{kind}.mrb", tmp_path / kind)
            names[kind] = " ".join(scene.GetNthNode(n).GetName() or "" for n in range(scene.GetNumberOfNodes()))
        assert "Doe" not in names["anonymous"]
        assert "Doe^Jane" in names["named"]

    def test_says_nothing_and_leaves_only_the_scene(self, result, tmp_path, capfd):
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

    def test_missing_folder(self, result, tmp_path):
        with pytest.raises(OutputError, match="nowhere"):
            mrml.write_scene(tmp_path / "nowhere" / "scene.mrb", result)


class TestContent:
    def test_folder_gives_the_same_content_as_the_result(self, result, content, tmp_path):
        from CACScoringLib.report import result_as_json, write_images

        (tmp_path / "scores.json").write_text(json.dumps(result_as_json(result, {})), encoding="utf-8")
        write_images(tmp_path, result)
        read = content_of_folder(tmp_path, content.ct, content.name)
        assert read.scores == content.scores
        assert read.lesion_rows == content.lesion_rows
        for image in ("heart", "lesions"):
            expected = sitk.GetArrayFromImage(getattr(content, image))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(getattr(read, image)), expected)

    def test_folder_without_result(self, content, tmp_path):
        with pytest.raises(UnreadableError, match=r"scores\.json"):
            content_of_folder(tmp_path, content.ct, content.name)

    def test_other_schema(self, content, tmp_path):
        (tmp_path / "scores.json").write_text('{"schema": "cac-score/9"}', encoding="utf-8")
        sitk.WriteImage(content.heart, str(tmp_path / "heart.nii.gz"))
        sitk.WriteImage(content.lesions, str(tmp_path / "lesions.nii.gz"))
        with pytest.raises(UnreadableError, match="cac-score/9"):
            content_of_folder(tmp_path, content.ct, content.name)

    def test_no_mass_column_without_calibration(self, scene, content):
        rows = tuple(replace(row, score=replace(row.score, mass_mg=None)) for row in content.scores)
        nodes = mrml.add_to_scene(scene, replace(content, scores=rows))
        assert nodes.scores.GetColumnIndex("Mass") == -1
        assert nodes.lesions.GetColumnIndex("Mass") >= 0


class TestVolumes:
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
    @pytest.mark.parametrize("pixel_type", [sitk.sitkInt16, sitk.sitkFloat32, sitk.sitkUInt16])
    def test_round_trip_is_exact(self, scene, direction, pixel_type):
        image = ct_image(direction, pixel_type)
        back = mrml.image_of_volume(mrml.add_volume(scene, image, "CT"))
        assert back.GetPixelID() == image.GetPixelID()
        assert back.GetSpacing() == image.GetSpacing()
        assert back.GetOrigin() == image.GetOrigin()
        assert back.GetDirection() == image.GetDirection()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))

    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
    def test_voxels_lie_where_slicer_puts_them(self, scene, direction):
        image = ct_image(direction)
        volume = mrml.add_volume(scene, image, "CT")
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        for index in [(0, 0, 0), (9, 2, 5), (1, 11, 6)]:
            x, y, z = image.TransformIndexToPhysicalPoint(index)
            assert matrix.MultiplyPoint((*index, 1))[:3] == pytest.approx((-x, -y, z), abs=1e-9)
            value = volume.GetImageData().GetScalarComponentAsDouble(*index, 0)
            assert value == image.GetPixel(index)

    def test_node_without_image(self, scene):
        empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
        with pytest.raises(NotVolumeError, match="nothing"):
            mrml.image_of_volume(empty)

    def test_sheared_axes(self, scene):
        volume = mrml.add_volume(scene, ct_image(), "tilted")
        volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0.2, 0, 0, 1)
        with pytest.raises(SliceGeometryError, match="tilted"):
            mrml.image_of_volume(volume)

    def test_volume_under_a_transform(self, scene):
        volume = mrml.add_volume(scene, ct_image(), "moved")
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        with pytest.raises(SliceGeometryError, match="moved"):
            mrml.image_of_volume(volume)


class TestSegmentations:
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
    def test_result_laid_on_a_volume_of_any_axis_order(self, scene, content, direction):
        # The user's node holds the same voxels in another order; the result comes on axial slices.
        image = ct_image(direction)
        labels = on_grid_of(image, labels_of(image))
        axial = [sitk.DICOMOrient(x, "LPS") for x in (image, labels, labels != 0)]
        volume = mrml.add_volume(scene, image, "CT")
        window = volume.GetDisplayNode().GetWindow()
        shown = replace(content, ct=axial[0], lesions=axial[1], heart=axial[2])
        nodes = mrml.add_to_scene(scene, shown, volume)
        assert nodes.volume is volume
        # On the node's own grid, so that Segment Editor need not resample when it edits.
        data, grid, expected = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        nodes.calcium.GetBinaryLabelmapRepresentation("LAD", data)
        data.GetImageToWorldMatrix(grid)
        volume.GetIJKToRASMatrix(expected)
        for row in range(3):
            assert [grid.GetElement(row, n) for n in range(4)] == pytest.approx(
                [expected.GetElement(row, n) for n in range(4)], abs=1e-9
            )
        assert volume.GetDisplayNode().GetWindow() == window
        back = mrml.label_map_of_segmentation(nodes.calcium, image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), labels_of(image))
        back = mrml.label_map_of_segmentation(nodes.calcium, axial[0])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(axial[1]))

    def test_result_that_cannot_be_laid_on_the_volume_adds_nothing(self, scene, content):
        volume = mrml.add_volume(scene, ct_image(), "moved")
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        before = scene.GetNumberOfNodes()
        with pytest.raises(SliceGeometryError, match="moved"):
            mrml.add_to_scene(scene, content, volume)
        assert scene.GetNumberOfNodes() == before

    def test_arteries_in_one_layer_are_told_apart(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        segments = nodes.calcium.GetSegmentation()
        segments.AddEmptySegment("RCA", "RCA")
        segments.CollapseBinaryLabelmaps(False)
        assert segments.GetNumberOfLayers() == 1
        counts = {key: int(mrml.segment_mask(nodes.calcium, key, content.ct).sum()) for key in segments.GetSegmentIDs()}
        assert counts == {"LM": 6, "LAD": 8, "unassigned": 4, "RCA": 0}

    def test_overlapping_arteries_count_once_each(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        data = slicer.vtkOrientedImageData()
        nodes.calcium.GetBinaryLabelmapRepresentation("LM", data)
        nodes.calcium.AddSegmentFromBinaryLabelmapRepresentation(data, "LCX", [1, 1, 1], "LCX")
        assert mrml.segment_mask(nodes.calcium, "LM", content.ct).sum() == 6
        assert mrml.segment_mask(nodes.calcium, "LCX", content.ct).sum() == 6
        with pytest.raises(MaskError, match="6 voxels belong to LM: left main and to LCX"):
            mrml.label_map_of_segmentation(nodes.calcium, content.ct)

    def test_segment_that_is_no_artery(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        nodes.calcium.GetSegmentation().AddEmptySegment("Segment_1", "tumour")
        with pytest.raises(MaskError, match="tumour is no artery"):
            mrml.label_map_of_segmentation(nodes.calcium, content.ct)

    def test_segment_named_by_hand(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        data = slicer.vtkOrientedImageData()
        nodes.calcium.GetBinaryLabelmapRepresentation("LM", data)
        nodes.calcium.GetSegmentation().RemoveSegment("LM")
        nodes.calcium.AddSegmentFromBinaryLabelmapRepresentation(data, "rca", [1, 1, 1], "Segment_9")
        labels = sitk.GetArrayFromImage(mrml.label_map_of_segmentation(nodes.calcium, content.ct))
        assert (labels == Artery.RCA).sum() == 6

    def test_segmentation_under_a_transform(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        nodes.calcium.SetAndObserveTransformNodeID(transform.GetID())
        with pytest.raises(SliceGeometryError, match="Calcium"):
            mrml.segment_mask(nodes.calcium, "LM", content.ct)

    def test_unknown_segment(self, scene, content):
        nodes = mrml.add_to_scene(scene, content)
        with pytest.raises(MaskError, match="LCX"):
            mrml.segment_mask(nodes.calcium, "LCX", content.ct)


class TestTerminology:
    def test_every_code_is_in_the_terminology_that_is_installed(self):
        file = Path(mrml.__file__).parents[1] / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
        terminology = json.loads(file.read_text(encoding="utf-8"))
        triple = "{CodingSchemeDesignator}^{CodeValue}^{CodeMeaning}".format_map
        known = {
            (triple(category), triple(kind))
            for category in terminology["SegmentationCodes"]["Category"]
            for kind in category["Type"]
        }
        for artery in Artery:
            context, category, kind, *_ = mrml.artery_terminology(artery).split("~")
            assert context == terminology["SegmentationCategoryTypeContextName"]
            assert (category, kind) in known

    def test_slicer_reads_the_terminology(self):
        file = Path(mrml.__file__).parents[1] / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
        logic = slicer.vtkSlicerTerminologiesModuleLogic()
        assert logic.LoadTerminologyFromFile(str(file)) == mrml.TERMINOLOGY
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(mrml.artery_terminology(Artery.LAD), entry)
        assert entry.GetTypeObject().GetCodeValue() == "29483008"
        assert entry.GetRegionObject().GetCodeValue() == "59438005"


def save_segmentation(segmentation, path):
    storage = segmentation.GetScene().AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.WriteData(segmentation)
    return path


def test_calcium_map_and_healthy_image_lie_over_the_ct(result, tmp_path):
    """They come from the result as from its folder, and the map is clear where there is none."""
    scan, rest = result.scan.image, sitk.Image(result.scan.image.GetSize(), sitk.sitkFloat32)
    rest.CopyInformation(scan)
    rest[5, 5, 2] = 240.0
    healthy = sitk.Cast(scan, sitk.sitkFloat32) - rest
    parts = Decomposition(rest, healthy, np.ones(3, bool), DecompositionSettings())
    method = result.methods["threshold"]
    taken_apart = replace(result, decomposition=parts, methods={**result.methods, "decomposition": method})
    report.write_json(tmp_path / "scores.json", taken_apart, {})
    report.write_images(tmp_path, taken_apart)
    contents = (content_of_result(taken_apart), content_of_folder(tmp_path, scan, "chest 7.nrrd"))
    for content in contents:
        scene = slicer.vtkMRMLScene()
        nodes = mrml.add_to_scene(scene, content)
        found = mrml.image_of_volume(nodes.calcium_map)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(rest))
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(mrml.image_of_volume(nodes.healthy)), sitk.GetArrayFromImage(healthy)
        )
        display = nodes.calcium_map.GetDisplayNode()
        assert display.GetApplyThreshold()
        assert 0 < display.GetLowerThreshold() < 10
    mrml.write_scene(tmp_path / "scene.mrb", taken_apart)
    assert (tmp_path / "scene.mrb").stat().st_size > 1000
    assert mrml.add_to_scene(slicer.vtkMRMLScene(), content_of_result(result)).calcium_map is None


def test_a_segmentation_saved_by_slicer_is_read_by_its_segments_names(scene, content, tmp_path):
    """Label values of a .seg.nrrd count its segments; taken for arteries, they would move calcium between vessels."""
    calcium = mrml.add_to_scene(scene, content).calcium
    calcium.GetSegmentation().RemoveSegment("LM")
    saved = save_segmentation(calcium, tmp_path / "edited.seg.nrrd")
    values = set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(saved)))) - {0}
    assert values != {int(Artery.LAD), int(Artery.UNASSIGNED)}
    labels, _ = mask_on_scan_grid(read_lesion_labels(saved), scan_from_image(content.ct, Acquisition("t")), "labels")
    expected = labels_of(content.ct)
    expected[expected == Artery.LM] = 0
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), expected)


def test_a_saved_segment_goes_by_the_name_the_user_sees(scene, content, tmp_path):
    calcium = mrml.add_to_scene(scene, content).calcium
    calcium.GetSegmentation().GetSegment("LAD").SetName("LCX")
    labels = read_lesion_labels(save_segmentation(calcium, tmp_path / "renamed.seg.nrrd"))
    assert set(np.unique(sitk.GetArrayFromImage(labels))) == {0, Artery.LM, Artery.LCX, Artery.UNASSIGNED}
    calcium.GetSegmentation().GetSegment("LAD").SetName("valve")
    with pytest.raises(MaskError, match="segment valve"):
        read_lesion_labels(save_segmentation(calcium, tmp_path / "valve.seg.nrrd"))
