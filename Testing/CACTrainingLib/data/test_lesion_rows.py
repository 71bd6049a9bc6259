"""Patches with labelled voxels: what each voxel holds, and how patches are cut, kept, drawn and varied."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import loaded
from images import image_of

from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH, TerritoryNetConfig
from CACScoringLib.scoring.lesion_network import LesionPatch, network_input
from CACTrainingLib.data import lesion_rows
from CACTrainingLib.data.lesion_batches import LesionAugmentation, LesionData, plain_batch, varied_batch
from CACTrainingLib.phantom import DIFFICULTIES
from CACTrainingLib.phantom.scanner.response import Stamp
from CACTrainingLib.project.training_scan import TrainingScan

RCA, ROOT = LESION_KINDS.index("RCA"), LESION_KINDS.index("aortic valve and root")
NETWORK = loaded(None, TerritoryNetConfig())
ANOTHER = replace(NETWORK, card=replace(NETWORK.card, sha256="1" * 64))
"""Territory networks."""


def test_a_voxel_is_of_the_kind_that_adds_most_or_noise():
    hu = np.full((1, 1, 4), lesion_rows.BLOOD_HU + 100, np.int16)
    stamps = {
        "RCA": [Stamp(0, 0, 0, np.array([[80, 30, 10, 0]], np.float32))],
        "aortic valve and root": [Stamp(0, 0, 0, np.array([[20, 40, 10, 0]], np.float32))],
    }
    for is_real, kind in ((False, lesion_rows.NOISE), (True, lesion_rows.NOT_CORONARY)):
        labels = lesion_rows.voxel_labels(np.arange(4), hu, stamps, is_real=is_real)
        assert labels.tolist() == [RCA + 1, ROOT + 1, kind + 1, kind + 1]


def test_numbers_of_digital_patients_are_of_one_use_and_difficulty_each():
    drawn = {use: lesion_rows.patients(use, 3 * len(DIFFICULTIES)) for use in lesion_rows.FIRST_NUMBERS}
    numbers = {use: np.array([number for number, _ in patients]) for use, patients in drawn.items()}
    blocks = [set((of_use // lesion_rows.NUMBERS_APART).tolist()) for of_use in numbers.values()]
    assert all(len(of_use) == len(DIFFICULTIES) for of_use in blocks)
    assert not set.intersection(*blocks)
    # Former kinds keep the numbers that models' cards state.
    firsts = {difficulty: number for number, difficulty in reversed(drawn["validation"])}
    assert (firsts[None], firsts["ostium"], firsts["field"]) == (31_000_000, 31_100_000, 31_800_000)


def dense_scan():
    """RCA plaque of 3 x 8 x 8 voxels that touches root wall of as many, and a speck, in a scan of 12 x 160 x 160."""
    hu = np.full((12, 160, 160), 40, np.int16)
    hu[:, 0], hu[0, 10, 0] = -1000, 1500
    labels = np.zeros(hu.shape, np.uint8)
    labels[4:7, 60:68, 60:68], labels[4:7, 60:68, 68:76], labels[2, 140, 20] = RCA + 1, ROOT + 1, lesion_rows.NOISE + 1
    hu[labels > 0] = 400
    scan = scan_from_image(image_of(hu, (0.75, 0.75, 2.0)), Acquisition("memory", kvp=120.0))
    grid = ScanGrid((0.0, 0.0, 0.0), (4.0, 4.0, 1.0), (40, 40, 12))
    probability = np.zeros((11, 12, 40, 40), np.float32)
    probability[4] = 1
    territories = Territories(grid, np.ones((12, 40, 40), np.float32), probability, "test")
    flat = np.flatnonzero(labels)
    sites = np.full(len(flat), 4, np.uint8)
    return lesion_rows.DenseScan(scan, territories, flat, labels.reshape(-1)[flat], sites, 12.0)


@pytest.fixture(scope="module")
def drawn():
    """Patches of `dense_scan`."""
    return lesion_rows.scan_rows(dense_scan(), np.random.default_rng(0))


@pytest.fixture
def rows(drawn):
    return drawn.copy()


def test_patches_hold_each_voxel_with_its_label_and_lesion(rows):
    row, *others = [row for row in rows if row["volumes_mm3"][RCA] > 0]
    assert len(others) == lesion_rows.COVERINGS - 1
    voxel_mm3 = 0.75 * 0.75 * 2
    assert row["volumes_mm3"][[RCA, ROOT, lesion_rows.NOISE]] == pytest.approx([192 * voxel_mm3, 192 * voxel_mm3, 0])
    for label in (RCA + 1, ROOT + 1):
        is_label = row["label"] == label
        assert row["dense"][is_label].sum() / 100 == pytest.approx(192, abs=20)
        assert lesion_rows.volume_of(row["size"][is_label & (row["dense"] > 50)]) == pytest.approx(
            192 * voxel_mm3, rel=0.05
        )
    assert (row["hu"][row["dense"] > 99] == 400).all()
    assert (row["territories"][4] == 100).all()
    assert row["noise_hu"] == 12


def test_what_is_unknown_is_dense_without_a_label():
    dense = dense_scan()
    dense.labels[dense.labels == ROOT + 1] = 0
    rows = lesion_rows.scan_rows(dense, np.random.default_rng(0))
    (row, *_) = [row for row in rows if row["volumes_mm3"][RCA] > 0]
    assert set(np.unique(row["label"]).tolist()) == {0, RCA + 1}
    assert row["dense"].sum() / 100 == pytest.approx(2 * 192, abs=20)
    batch = plain_batch(rows[[row["volumes_mm3"][RCA] > 0 for row in rows]][:1])
    assert batch.x[0, 3].sum() == pytest.approx(2 * 192, abs=20)
    assert (batch.weights[0][batch.labels[0] == 0] == 0).all()
    dense.labels[:] = 0
    assert len(lesion_rows.scan_rows(dense, np.random.default_rng(0))) == 0


def test_many_patches_of_noise_are_thinned():
    dense = dense_scan()
    labels = np.zeros(dense.scan.hu.shape, np.uint8)
    labels[6, ::30, ::30] = lesion_rows.NOISE + 1
    labels[6, 60:64, 60:64] = RCA + 1
    flat = np.flatnonzero(labels)
    dense = lesion_rows.DenseScan(
        dense.scan, dense.territories, flat, labels.reshape(-1)[flat], np.ones(len(flat), np.uint8), None
    )
    rows = lesion_rows.scan_rows(dense, np.random.default_rng(0))
    is_noise = ~rows["volumes_mm3"][:, : lesion_rows.NOISE].any(axis=1)
    assert is_noise.sum() == lesion_rows.MAX_NOISE_PATCHES[False]
    assert not is_noise.all()
    assert np.isnan(rows["noise_hu"]).all()


def test_labels_of_painted_scans_are_those_of_the_annotators():
    regions = np.zeros((2, 3, 1, 4), np.uint8)  # two annotators; three slices of four voxels
    regions[0, 0, 0] = [Artery.LAD, Artery.OTHER, 0, 0]
    regions[:, 1, 0] = [[Artery.LAD, Artery.LAD, 0, 0], [Artery.RCA, Artery.LAD, 0, 0]]
    regions[0, 2, 0] = [Artery.LM, 0, 0, 0]  # and the second annotator left it unpainted
    readings = [
        lesion_rows.Reading(regions[0], np.array([False, True, False])),
        lesion_rows.Reading(regions[1], np.array([False, False, True])),
    ]
    labels = lesion_rows.annotated_labels(np.arange(12), readings).reshape(3, 4)
    assert labels[0].tolist() == [Artery.LAD, 0, 0, 0], "no slice is complete, and OTHER tells no artery"
    assert labels[1].tolist() == [0, Artery.LAD, lesion_rows.NOT_CORONARY + 1, lesion_rows.NOT_CORONARY + 1], (
        "the first is disputed"
    )
    assert labels[2].tolist() == [0, *[lesion_rows.NOT_CORONARY + 1] * 3]


def test_sources_are_in_hu_by_kind():
    scanner = SimpleNamespace(calcium_hu_per_mg_cm3=1.5)
    plaque = Stamp(1, 2, 3, np.full((1, 1), 0.2, np.float32))
    stent, valve, root = (Stamp(0, 0, 0, np.full((1, 1), hu, np.float32)) for hu in (900, 500, 400))
    scan = SimpleNamespace(
        scanner=scanner,
        arteries={"LAD": [plaque]},
        elsewhere={"stent": [stent], "aortic valve": [valve], "aortic root": [root]},
    )
    sources = lesion_rows.sources_of(scan)
    assert sources["LAD"][0].values == pytest.approx(0.2 * 1500)
    assert [stamp.values.item() for stamp in sources["aortic valve and root"]] == [500, 400]
    assert sources["stent"] == [stent]


def test_patients_are_of_all_difficulties_by_turns():
    first = lesion_rows.patients("training", len(DIFFICULTIES) + 1)
    assert first[:3] == [(30_000_000, None), (30_100_000, "ostium"), (30_200_000, "heavy")]
    assert first[-1] == (30_000_001, None)
    assert not {number for number, _ in lesion_rows.patients("validation", 500)} & {
        n for n, _ in lesion_rows.patients("training", 900_000)
    }


def test_rows_are_written_once_and_read_back(rows, tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(lesion_rows, "digital_scan", lambda number, *_: numbers.append(number))
    monkeypatch.setattr(lesion_rows, "scan_rows", lambda *_: rows)
    for _ in range(2):
        np.testing.assert_array_equal(lesion_rows.patient_rows(7_000_003, None, tmp_path, NETWORK), rows)
    assert numbers == [7_000_003]
    lesion_rows.patient_rows(7_000_003, None, tmp_path, ANOTHER)
    assert numbers == [7_000_003] * 2, "rows hold the territories of a network"


def test_a_scan_without_a_heart_or_room_for_calcium_has_no_lesions(tmp_path, monkeypatch):
    def fail(*_):
        raise CTError("No heart.")

    monkeypatch.setattr(lesion_rows, "digital_scan", fail)
    monkeypatch.setattr(lesion_rows.phantom, "insert_lesions", fail)
    monkeypatch.setattr(lesion_rows.phantom, "clean_scan", lambda *_: None)
    monkeypatch.setattr(lesion_rows, "_background", lambda _: None)
    (tmp_path / "ct.nii.gz").touch()
    scan = TrainingScan(name="", patient="A0001", ct=tmp_path / "ct.nii.gz", heart=tmp_path / "ct.nii.gz")
    for _ in range(2):  # the second time from the file
        assert len(lesion_rows.patient_rows(7_000_004, None, tmp_path, NETWORK)) == 0
        assert len(lesion_rows.inserted_rows(scan, 3, tmp_path, NETWORK)) == 0


def speckled_scan(slices=24, spacing_mm=1.0):
    """Noise of 20 HU about 0 HU with one voxel of 600 HU, and air behind it."""
    hu = np.random.default_rng(2).normal(0, 20, (slices, 40, 40))
    hu[4, 20, 20] = 600
    hu[:, 28:] -= 1000
    return scan_from_image(image_of(hu.astype(np.int16), (0.7, 0.7, spacing_mm)), Acquisition("memory", kvp=120.0))


def test_views_of_a_scan_repeat_and_differ_in_slices_kernel_and_noise():
    scan = speckled_scan()
    views = [lesion_rows._other_view(scan, np.random.default_rng(seed)) for seed in range(12)]
    again = lesion_rows._other_view(scan, np.random.default_rng(3))
    np.testing.assert_array_equal(again.hu, views[3].hu)
    thicknesses = {round(view.image.GetSpacing()[2]) for view in views}
    assert len(thicknesses) > 2
    assert max(thicknesses) <= lesion_rows.THICKEST_MM
    for view in views:
        assert view.image.GetSpacing()[:2] == scan.image.GetSpacing()[:2]
        assert view.hu[:, :20].mean() == pytest.approx(scan.hu[:, :20].mean(), abs=3)
    noise = [view.hu[:, 2:16].std() for view in views]
    assert min(noise) < 14 < 22 < max(noise)


def test_a_small_field_is_cut_around_the_heart():
    scan = speckled_scan()
    heart = np.zeros(scan.hu.shape, bool)
    heart[:, 20:30, 28:38] = True
    cut = lesion_rows._small_field(scan, heart, 14.0)
    assert cut.image.GetSize() == (20, 20, 24)
    np.testing.assert_array_equal(cut.hu, scan.hu[:, 14:34, 20:])
    assert lesion_rows._small_field(scan, heart, 99.0).hu.shape == scan.hu.shape


def test_digital_patients_keep_few_patches_of_each_kind(monkeypatch):
    dense = dense_scan()
    labels = np.zeros(dense.scan.hu.shape, np.uint8)
    labels[6, 10::30, 10::30] = ROOT + 1
    labels[6, 60:64, 60:64] = RCA + 1
    flat = np.flatnonzero(labels)
    dense = replace(dense, flat=flat, labels=labels.reshape(-1)[flat], sites=np.ones(len(flat), np.uint8))
    monkeypatch.setattr(lesion_rows, "MAX_PATCHES", {True: 90, False: 4})
    kept = [lesion_rows.scan_rows(dense, np.random.default_rng(seed))["volumes_mm3"] for seed in range(8)]
    assert {len(volumes) for volumes in kept} == {4}
    assert sum((volumes[:, RCA] > 0).any() for volumes in kept) > 4, "few of the patches, but as likely as a kind"


def test_clean_scans_hold_nothing_coronary(rows, tmp_path, monkeypatch):
    seen = []

    def label(ct, sources, _, is_real):
        seen.append((ct.hu.shape, sources, is_real))

    monkeypatch.setattr(lesion_rows, "dense_scan", label)
    monkeypatch.setattr(lesion_rows, "scan_rows", lambda *_: rows)
    path = tmp_path / "ct.nii.gz"
    sitk.WriteImage(speckled_scan().image, path)
    scan = TrainingScan(name="", patient="A0001", ct=path, heart=path)
    for view in (0, 1, 1):
        assert len(lesion_rows.clean_rows(scan, view, tmp_path / "rows", NETWORK)) == len(rows)
    assert seen[0] == ((24, 40, 40), {}, True)
    assert len(seen) == 2, "kept in the cache"


def test_rows_of_another_version_are_refused(tmp_path):
    path = lesion_rows._file(tmp_path, 7_000_005, NETWORK)
    np.save(path, np.zeros(lesion_rows.ROW.itemsize))
    with pytest.raises(CTError, match="Delete it"):
        lesion_rows.patient_rows(7_000_005, None, tmp_path, NETWORK)


def test_plain_patches_are_what_the_network_sees_in_a_scan(rows):
    rows = rows[:1]
    rows["territories"][0] = 4 * np.arange(16)
    cut = tuple(slice((n - p) // 2, (n + p) // 2) for n, p in zip(lesion_rows.ROW_SIZE, LESION_PATCH, strict=True))
    hu, dense = rows["hu"][0][cut].astype(np.float32), rows["dense"][0][cut] / np.float32(100)
    # The patch begins 9 voxels after its row, which is 2.25 voxels of the territories.
    territories = np.tile(4 * (np.arange(12, dtype=np.float32) + 2.25) / 100, (11, 8, 12, 1))
    (inputs,) = plain_batch(rows).x
    np.testing.assert_allclose(inputs, network_input(LesionPatch(hu, dense, territories), 12.0), atol=2e-3)


def test_batches_keep_labels_and_give_small_lesions_more_weight_per_voxel(rows):
    batch = plain_batch(rows)
    plaque = int(rows["volumes_mm3"][:, RCA].argmax())
    is_plaque, is_speck = batch.labels[plaque] == RCA + 1, batch.labels == lesion_rows.NOISE + 1
    assert float(batch.x[plaque, 3][is_plaque].sum()) == pytest.approx(192, abs=20)
    assert batch.weights[is_speck].sum() > 5 * batch.weights[plaque][is_plaque].max()
    assert (batch.weights[batch.labels == 0] == 0).all()
    varied = varied_batch(rows, LesionAugmentation(), np.random.default_rng(1))
    assert set(varied.labels[plaque].unique().tolist()) >= {0, RCA + 1, ROOT + 1}
    assert not torch.equal(varied.x, batch.x)
    torch.testing.assert_close(varied.x, varied_batch(rows, LesionAugmentation(), np.random.default_rng(1)).x)


def test_patches_with_an_artery_beside_the_root_are_drawn_more_often(rows):
    rows = np.repeat(rows[:1], 3)
    rows["volumes_mm3"] = 0
    rows["volumes_mm3"][0, [RCA, ROOT]] = 50
    rows["volumes_mm3"][1, RCA] = rows["volumes_mm3"][2, ROOT] = 50
    chances = LesionData({"usual": [rows]}).chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[0] > 2 * chances[1] > 0


def test_annotated_patches_take_their_share_of_a_batch(rows):
    data = LesionData({"usual": [rows, np.zeros(0, lesion_rows.ROW)], "annotated": [rows[:1], rows[1:]], "real": []})
    chances = data.chances({"annotated": 0.4, "real": 0.3})
    assert chances[len(rows) :].sum() == pytest.approx(0.4)
    assert chances[: len(rows)] == pytest.approx(0.6 * LesionData({"usual": [rows]}).chances())
    np.testing.assert_array_equal(data.rows(np.array([len(rows) + 1, 0])), rows[[1, 0]])


def test_territories_are_shifted_against_the_scan_and_sometimes_unknown(rows):
    rows = np.repeat(rows[:1], 12)
    rows["territories"][:] = 0
    rows["territories"][:, 4, :, :, :8], rows["territories"][:, 5, :, :, 8:] = 100, 100
    still = {"turn_degrees": (0.0,) * 3, "scale": 1.0, "shift_mm": (0.0,) * 3, "doubt": 0.0, "noise_share": 0.0}
    settings = LesionAugmentation(**still, kernel_share=0.0, thicker_share=0.0, unknown_share=0.5)
    x = varied_batch(rows, settings, np.random.default_rng(0)).x
    assert x[:, 4:15].sum(1).numpy() == pytest.approx(1, abs=1e-4)
    rca = x[:, 4 + 4, 8, 24]
    is_unknown = (rca - 1 / 11).abs().amax(1) < 1e-3
    assert 0 < int(is_unknown.sum()) < len(rows)
    borders = (rca[~is_unknown] > 0.5).sum(1)
    assert borders.unique().numel() > 2
    assert float((x[:, 1] - x[:1, 1]).abs().max()) < 0.1, "the CT stays where it is"
