"""Features of regions against the digital phantom of the Image Biomarker Standardisation Initiative, and by hand."""

import itertools
import logging
import sys

import numpy as np
import pytest

from CACScoringLib.whole_scan.radiomic_texture import FEATURES, RadiomicsError, ibsi_features

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
"""Zwanenburg et al., arXiv:1612.07003, chapter 5; 74 voxels are inside."""


def reference_cooccurrence(values: np.ndarray, steps: list[tuple[int, int, int]]) -> np.ndarray:
    """How often levels (of 1 to 6) are neighbours, both ways, over all steps together: [6, 6], summing up to 1."""
    counts = np.zeros((6, 6))
    for place in itertools.product(*map(range, values.shape)):
        for step in steps:
            other = tuple(a + b for a, b in zip(place, step, strict=True))
            if min(other) < 0 or any(a >= n for a, n in zip(other, values.shape, strict=True)):
                continue
            one, two = int(values[place]), int(values[other])
            if one != OUT and two != OUT:
                counts[one - 1, two - 1] += 1
                counts[two - 1, one - 1] += 1
    return counts / counts.sum()


def test_statistics_are_those_of_the_published_phantom():
    found = ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 1.0, families=["statistics"])
    published = {"mean": 2.15, "var": 3.05, "skew": 1.08, "kurt": -0.355, "median": 1, "max": 6, "energy": 567}
    for name, value in published.items():
        assert found[f"stat_{name}"] == pytest.approx(value, rel=0.005), name


@pytest.mark.parametrize("by_slice", [False, True])
def test_texture_is_that_of_pairs_counted_one_by_one(by_slice):
    found = ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 1.0, by_slice, families=["glcm"])
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    if by_slice:
        planes = [reference_cooccurrence(plane[None], [s for s in steps if s[0] == 0]) for plane in PHANTOM]
    else:
        planes = [reference_cooccurrence(PHANTOM, steps)]
    difference = (np.arange(6)[:, None] - np.arange(6)) ** 2
    assert found["cm_contrast"] == pytest.approx(np.mean([(difference * p).sum() for p in planes]), rel=1e-5)
    assert found["cm_joint_max"] == pytest.approx(np.mean([p.max() for p in planes]), rel=1e-5)


def test_what_lies_beyond_the_limits_is_not_counted():
    hu = np.where(PHANTOM == OUT, 3000, PHANTOM)
    with_metal = ibsi_features(hu, np.ones(hu.shape, bool), (1.0, 6.0), 1.0, families=["statistics"])
    assert with_metal == ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 1.0, families=["statistics"])


@pytest.mark.parametrize("voxels", [0, 1])
def test_all_features_are_there_and_finite_where_there_is_little(voxels):
    inside = np.zeros(PHANTOM.shape, bool)
    inside[0, 0, :voxels] = True
    found = ibsi_features(PHANTOM, inside, (1.0, 6.0), 25.0, by_slice=True)
    assert list(found) == [name for names in FEATURES.values() for name in names]
    assert np.isfinite(list(found.values())).all()
    assert bool(found["stat_mean"]) == bool(voxels)


def test_nothing_is_written_or_left_in_the_log(capsys):
    before = list(logging.getLogger().handlers)
    ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 25.0, families=["statistics"])
    assert capsys.readouterr().out == ""
    assert logging.getLogger().handlers == before


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mirp", None)
    with pytest.raises(RadiomicsError, match="pip install mirp"):
        ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 25.0)
