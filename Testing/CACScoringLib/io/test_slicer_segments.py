"""Segmentations of 3D Slicer with one layer and with several."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.errors import MaskError
from CACScoringLib.io.reading import read_lesion_labels


@pytest.fixture
def save(tmp_path):
    def save(values, *segments):
        """values: [k, j, i] or [k, j, i, layer]. segments: name, label value and layer of each."""
        image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
        for n, (name, value, layer) in enumerate(segments):
            facts = {"ID": f"Segment_{n}", "Name": name, "LabelValue": str(value), "Layer": str(layer)}
            for key, text in facts.items():
                image.SetMetaData(f"Segment{n}_{key}", text)
        path = tmp_path / "lesions.seg.nrrd"
        sitk.WriteImage(image, str(path))
        return path

    return save


def layers(*shape):
    return np.zeros((3, 4, 5, *shape), np.uint8)


def test_names_decide_and_values_mean_nothing(save):
    values = layers()
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2], values[2, 3, 4] = 7, 3, 5, 9
    path = save(
        values, ("Left Anterior Descending", 7, 0), ("PDA", 3, 0), ("not-coronary", 5, 0), ("Mitral Valve", 9, 0)
    )
    labels = sitk.GetArrayFromImage(read_lesion_labels(path))
    assert [labels[0, 0, 0], labels[1, 1, 1], labels[2, 2, 2], labels[2, 3, 4]] == [2, 4, 0, 9]
    assert np.count_nonzero(labels) == 3


def test_layers_that_share_no_voxel_are_combined(save):
    values = layers(2)
    values[0, 0, :2, 0], values[0, 0, 2, 1], values[1, 0, 0, 1] = 1, 1, 2
    labels = sitk.GetArrayFromImage(read_lesion_labels(save(values, ("LAD", 1, 0), ("RCA", 1, 1), ("Cx", 2, 1))))
    assert (labels[0, 0].tolist(), labels[1, 0, 0], np.count_nonzero(labels)) == ([2, 2, 4, 0, 0], 3, 4)


def test_voxels_of_two_segments_are_counted_by_pair(save):
    values = layers(3)
    values[0, 0, :4, 0], values[0, 0, 2:, 1], values[0, 0, 4, 2] = 1, 1, 1
    path = save(values, ("LAD", 1, 0), ("RCA", 1, 1), ("Left Main", 1, 2), ("LAD 2", 3, 2))
    with pytest.raises(MaskError, match=r"LAD and RCA share 2 voxels; RCA and Left Main share 1 voxel\."):
        read_lesion_labels(path)


def test_segments_of_the_same_site_may_share_voxels(save):
    values = layers(2)
    values[0, 0, :3, 0], values[0, 0, 2:, 1] = 1, 1
    labels = sitk.GetArrayFromImage(read_lesion_labels(save(values, ("LAD", 1, 0), ("LAD 2", 1, 1))))
    assert labels[0, 0].tolist() == [2] * 5
