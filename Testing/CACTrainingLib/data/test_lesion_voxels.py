"""Patches with labelled voxels: what each voxel holds, and how patches are cut, kept, drawn and varied."""

import math

import numpy as np
import pytest
import torch
from images import image_of

from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import ScanGrid
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH
from CACScoringLib.scoring.map_evidence import BLOOD_HU
from CACTrainingLib.data.lesion_voxel_batches import VoxelAugmentation, VoxelData, plain_voxels, varied_voxels
from CACTrainingLib.data.lesion_voxels import (
    MAX_NOISE_PATCHES,
    NOISE,
    NOT_CORONARY,
    DenseScan,
    open_dense_scan,
    open_rows,
    size_code,
    volume_of,
    voxel_labels,
    voxel_rows,
    write_dense_scan,
    write_rows,
)
from CACTrainingLib.phantom.scanner.response import Stamp

RCA, ROOT = LESION_KINDS.index("RCA"), LESION_KINDS.index("aortic valve and root")


def test_a_voxel_is_of_the_kind_that_adds_most_or_noise():
    hu = np.full((1, 1, 4), BLOOD_HU + 100, np.int16)
    stamps = {
        "RCA": [Stamp(0, 0, 0, np.array([[80, 30, 10, 0]], np.float32))],
        "aortic valve and root": [Stamp(0, 0, 0, np.array([[20, 40, 10, 0]], np.float32))],
    }
    flat = np.arange(4)
    assert voxel_labels(flat, hu, stamps).tolist() == [RCA + 1, ROOT + 1, NOISE + 1, NOISE + 1]
    assert voxel_labels(flat, hu, stamps, is_real=True).tolist() == [RCA + 1, ROOT + 1, *[NOT_CORONARY + 1] * 2]


def dense_scan(is_real=False):
    """RCA plaque of 3 x 8 x 8 voxels that touches root wall of as many, and a speck, in a scan of 12 x 160 x 160."""
    hu = np.full((12, 160, 160), 40, np.int16)
    hu[:, 0], hu[0, 10, 0] = -1000, 1500
    labels = np.zeros(hu.shape, np.uint8)
    labels[4:7, 60:68, 60:68], labels[4:7, 60:68, 68:76], labels[2, 140, 20] = RCA + 1, ROOT + 1, NOISE + 1
    hu[labels > 0] = 400
    scan = scan_from_image(image_of(hu, (0.75, 0.75, 2.0)), Acquisition("memory", kvp=120.0))
    grid = ScanGrid((0.0, 0.0, 0.0), (4.0, 4.0, 1.0), (40, 40, 12))
    probability = np.zeros((11, 12, 40, 40), np.float32)
    probability[4] = 1
    territories = Territories(grid, np.ones((12, 40, 40), np.float32), probability, "test")
    flat = np.flatnonzero(labels)
    sites = np.full(len(flat), 4, np.uint8)
    return DenseScan(scan, territories, flat, labels.reshape(-1)[flat], sites, 12.0, is_real)


def test_patches_hold_each_voxel_with_its_label_and_lesion():
    rows = voxel_rows(dense_scan(), np.random.default_rng(0))
    (row,) = [row for row in rows if row["volumes_mm3"][RCA] > 0]
    voxel_mm3 = 0.75 * 0.75 * 2
    assert row["volumes_mm3"][[RCA, ROOT, NOISE]] == pytest.approx([192 * voxel_mm3, 192 * voxel_mm3, 0])
    for label in (RCA + 1, ROOT + 1):
        is_label = row["label"] == label
        assert row["dense"][is_label].sum() / 100 == pytest.approx(192, abs=20)
        assert volume_of(row["size"][is_label & (row["dense"] > 50)]) == pytest.approx(192 * voxel_mm3, rel=0.05)
    assert (row["hu"][row["dense"] > 99] == 400).all()
    assert (row["territories"][4] == 100).all()
    assert row["noise_hu"] == 12
    assert len(voxel_rows(dense_scan(), np.random.default_rng(0), coverings=2)) == 2 * len(rows)


def test_many_patches_of_noise_are_thinned():
    dense = dense_scan()
    labels = np.zeros(dense.scan.hu.shape, np.uint8)
    labels[6, ::30, ::30] = NOISE + 1
    labels[6, 60:64, 60:64] = RCA + 1
    flat = np.flatnonzero(labels)
    dense = DenseScan(dense.scan, dense.territories, flat, labels.reshape(-1)[flat], np.ones(len(flat), np.uint8), None)
    rows = voxel_rows(dense, np.random.default_rng(0))
    is_noise = ~rows["volumes_mm3"][:, :NOISE].any(axis=1)
    assert is_noise.sum() == MAX_NOISE_PATCHES[False]
    assert not is_noise.all()
    assert np.isnan(rows["noise_hu"]).all()


def test_sizes_are_kept_on_a_logarithmic_scale():
    volumes = np.array([0.0, 3.0, 100.0, 5000.0, 1e6])
    decoded = volume_of(size_code(volumes))
    assert decoded[:4] == pytest.approx(volumes[:4], rel=0.05)
    assert decoded[4] == pytest.approx(40_000, rel=0.05)


def test_scans_and_rows_are_read_as_written(tmp_path):
    dense = dense_scan(is_real=True)
    write_dense_scan(tmp_path / "scan.npz", dense)
    read = open_dense_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(read.scan.hu, dense.scan.hu)
    np.testing.assert_array_equal(read.labels, dense.labels)
    assert read.scan.image.GetSpacing() == dense.scan.image.GetSpacing()
    assert read.scan.image.GetOrigin() == dense.scan.image.GetOrigin()
    assert (read.noise_hu, read.is_real, read.scan.acquisition.kvp) == (12, True, 120)
    rows = voxel_rows(dense, np.random.default_rng(0))
    write_rows(tmp_path / "rows.npy", rows)
    write_rows(tmp_path / "none.npy", rows[:0])
    (again,) = open_rows([tmp_path / "none.npy", tmp_path / "rows.npy"])
    np.testing.assert_array_equal(again, rows)


def test_batches_keep_labels_and_give_small_lesions_more_weight_per_voxel():
    rows = voxel_rows(dense_scan(), np.random.default_rng(0))
    batch = plain_voxels(rows)
    assert batch.x.shape == (len(rows), 16, *LESION_PATCH)
    plaque = int(rows["volumes_mm3"][:, RCA].argmax())
    is_plaque, is_speck = batch.labels[plaque] == RCA + 1, batch.labels == NOISE + 1
    assert float(batch.x[plaque, 3][is_plaque].sum()) == pytest.approx(192, abs=20)
    assert batch.x[plaque, 2][is_plaque & (batch.x[plaque, 3] > 0.9)].median() == pytest.approx(
        (400 + 150) / 1650, abs=0.01
    )
    assert batch.weights[is_speck].sum() > 5 * batch.weights[plaque][is_plaque].max()
    assert (batch.weights[batch.labels == 0] == 0).all()
    varied = varied_voxels(rows, VoxelAugmentation(), np.random.default_rng(1))
    assert set(varied.labels[plaque].unique().tolist()) >= {0, RCA + 1, ROOT + 1}
    assert not torch.equal(varied.x, batch.x)


def test_patches_with_an_artery_beside_the_root_are_drawn_more_often():
    rows = np.repeat(voxel_rows(dense_scan(), np.random.default_rng(0))[:1], 3)
    rows["volumes_mm3"] = 0
    rows["volumes_mm3"][0, [RCA, ROOT]] = 50
    rows["volumes_mm3"][1, RCA] = rows["volumes_mm3"][2, ROOT] = 50
    chances = VoxelData([rows]).chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[0] > 2 * chances[1] > 0
    assert math.isfinite(chances[2])


def test_territories_are_shifted_against_the_scan_and_sometimes_unknown():
    rows = np.repeat(voxel_rows(dense_scan(), np.random.default_rng(0))[:1], 12)
    rows["territories"][:] = 0
    rows["territories"][:, 4, :, :, :8], rows["territories"][:, 5, :, :, 8:] = 100, 100
    still = {"turn_degrees": (0.0,) * 3, "scale": 1.0, "shift_mm": (0.0,) * 3, "doubt": 0.0, "noise_share": 0.0}
    settings = VoxelAugmentation(**still, kernel_share=0.0, thicker_share=0.0, unknown_share=0.5)
    x = varied_voxels(rows, settings, np.random.default_rng(0)).x
    assert x[:, 4:15].sum(1).numpy() == pytest.approx(1, abs=1e-4)
    rca = x[:, 4 + 4, 8, 24]
    is_unknown = (rca - 1 / 11).abs().amax(1) < 1e-3
    assert 0 < int(is_unknown.sum()) < len(rows)
    borders = (rca[~is_unknown] > 0.5).sum(1)
    assert borders.unique().numel() > 2
    assert float((x[:, 1] - x[:1, 1]).abs().max()) < 0.1, "the CT stays where it is"
