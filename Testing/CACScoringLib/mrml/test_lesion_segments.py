"""Tests of territory and lesion segments: names, codes and voxels, also after Slicer has saved them."""

from pathlib import Path

import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from labelled_chest import labels_of, rows_of

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import mask_on_scan_grid, scan_from_image
from CACScoringLib.core.labels import NOT_CORONARY_ID, SITE_COLOURS, TERRITORIES, Artery, NonCoronary, label_called
from CACScoringLib.io.reading import read_lesion_labels
from CACScoringLib.mrml import lesion_segments
from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_result
from CACScoringLib.mrml.segments import segment_mask, voxels_of_segments
from CACScoringLib.report import files as report


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
