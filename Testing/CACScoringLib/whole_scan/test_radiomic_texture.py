"""Features of the digital phantom of the Image Biomarker Standardisation Initiative, and of tiny regions."""

import numpy as np
import pytest

from CACScoringLib.whole_scan.radiomic_texture import FEATURES, ibsi_features

pytest.importorskip("mirp")

OUT = -500
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [OUT, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, OUT, OUT], [1, 1, 1, 1, 1], [1, 1, OUT, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, OUT, OUT], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
"""Digital phantom of Zwanenburg et al., arXiv:1612.07003, chapter 5, with 74 voxels inside."""


def test_statistics_are_those_of_the_published_phantom():
    features = ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 1.0, families=["statistics"])
    published = {"mean": 2.15, "var": 3.05, "skew": 1.08, "kurt": -0.355, "median": 1, "max": 6, "energy": 567}
    for name, value in published.items():
        assert features[f"stat_{name}"] == pytest.approx(value, rel=0.005), name


@pytest.mark.parametrize("voxels", [0, 1])
def test_all_features_of_little_tissue_are_there_and_finite(voxels):
    inside = np.zeros(PHANTOM.shape, bool)
    inside[0, 0, :voxels] = True
    features = ibsi_features(PHANTOM, inside, (1.0, 6.0), 25.0, by_slice=True)
    assert list(features) == [name for names in FEATURES.values() for name in names]
    assert np.isfinite(list(features.values())).all()
    assert bool(features["stat_mean"]) == bool(voxels)
