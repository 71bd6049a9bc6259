"""Training samples from scans: as in scoring, split by patient, balanced, with coronary calcium alone as target."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import slow_augmentation
import torch
from damaged_files import cut
from dicom_files import write_series
from scipy import ndimage
from training_scans import CALCIUM_HU, CONTRAST, write_scan

from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models import preprocessing
from CACScoringLib.models.preprocessing import TERRITORY_SPACING_MM
from CACScoringLib.networks.configs import SliceClassifierConfig
from CACTrainingLib.data import augmentation, datasets, slice_batches
from CACTrainingLib.data.territory_patches import HEART_ONLY, outlined_volume
from CACTrainingLib.phantom.cohort.export import VISIBLE_CONTRAST_TO_NOISE
from CACTrainingLib.project.training_scan import KINDS


@pytest.fixture(scope="module")
def data(cohort, tmp_path_factory):
    scans = datasets.find_scans([cohort])
    return datasets.SliceDataset(
        [datasets.load_slices(f) for f in datasets.prepare(scans, "slices", tmp_path_factory.mktemp("cache"))]
    )


def test_kinds_of_scans(cohort):
    kinds = {s.patient: s.kind for s in datasets.find_scans([cohort, cohort])}
    assert kinds == dict(zip("01234567", ["coronary", "coronary", "distractor", "clean"] * 2, strict=True))
    assert len(datasets.find_scans([cohort, cohort])) == 9


def test_wrong_folder_is_refused(tmp_path):
    folder = tmp_path / "data"

    def expect_error(message):
        with pytest.raises(DataError, match=message):
            datasets.find_scans([folder])

    expect_error("does not exist")
    folder.mkdir()
    expect_error("holds no scan")
    write_scan(folder / "a", 1, True, False)
    (folder / "a" / "heart.nii.gz").unlink()
    expect_error(r"no heart\.nii\.gz")
    (folder / "a" / "truth.json").write_text('{"patient": 1}', encoding="utf-8")
    expect_error("not the truth of a scan")


def test_no_patient_is_in_both_parts(cohort):
    scans = datasets.find_scans([cohort])
    for seed in range(5):
        training, validation = datasets.split_by_patient(scans, 0.5, seed)
        assert not {s.patient for s in training} & {s.patient for s in validation}
        assert len(training) + len(validation) == len(scans)
        assert {s.kind for s in validation} == {"coronary", "distractor", "clean"}
        again = datasets.split_by_patient(scans[::-1], 0.5, seed)
        assert {s.patient for s in again[1]} == {s.patient for s in validation}
    different = {frozenset(s.patient for s in datasets.split_by_patient(scans, 0.5, seed)[1]) for seed in range(8)}
    assert len(different) > 1


@pytest.mark.long
def test_one_of_two_patients_with_calcium_is_validated_on(cohort):
    [scan, *_] = datasets.find_scans([cohort])
    kinds = ["clean"] * 8 + [KINDS[-1]] * 2
    scans = [replace(scan, patient=str(n), kind=kind, use="") for n, kind in enumerate(kinds)]
    for seed in range(5):
        training, validation = datasets.split_by_patient(scans, 0.2, seed)
        assert sorted(s.kind for s in validation) == sorted(["clean", "clean", KINDS[-1]])
        assert [s.kind for s in training].count(KINDS[-1]) == 1


def test_samples_are_what_scoring_sees(cohort, data):
    scan = datasets.find_scans([cohort])[0]
    slices = preprocessing.heart_slices(read_ct(scan.ct), sitk.GetArrayFromImage(read_mask(scan.heart)) > 0)
    indices = np.arange(len(slices))
    expected = preprocessing.slice_input(slices, indices, 2, True)
    np.testing.assert_allclose(data.network_input(indices, 2, True), expected, atol=5e-4)
    # Augmentation without any variation.
    x, _ = slice_batches.vary_slices(*drawn_slices(data, indices, np.ones(len(indices)), 2), 224)
    np.testing.assert_allclose(x.numpy(), expected, atol=5e-4)


def test_true_map_holds_the_coronary_calcium_alone(data):
    for number, scan in enumerate(data.scans):
        indices = np.nonzero(data.scan == number)[0]
        volume = data.true_map(indices).sum() * preprocessing.MAP_HU * np.prod(preprocessing.SLICE_SPACING_MM)
        expected = sum(CALCIUM_HU.values()) * 8 * 8 * 3 if scan.kind == "coronary" else 0.0
        assert volume == pytest.approx(expected, rel=0.01)
    distractor = data.kind == 1
    assert data.bright[distractor].any()
    assert not data.calcium[distractor].any()
    assert not data.bright[data.kind == 0].any()


def test_batches_are_balanced(data):
    sampler = slice_batches.BalancedSampler(data, slice_batches.Sampling(hard_share=0.5, position_tolerance=0.2))
    generator = np.random.default_rng(3)
    hard = []
    for _ in range(60):
        drawn = sampler.draw(generator, 8)
        positive, negative = drawn.indices[:4], drawn.indices[4:]
        assert drawn.visible.tolist() == [True] * 4 + [False] * 4
        assert (drawn.calcium == 1).all()
        assert data.visible[positive].all()
        assert not data.visible[negative].any()
        assert np.abs(data.position[negative] - data.position[positive]).max() <= 0.31
        hard += data.bright[negative].tolist()
    assert 0.35 < np.mean(hard) < 0.75
    easy = slice_batches.BalancedSampler(data, slice_batches.Sampling(hard_share=0.0))
    share = np.mean([data.bright[easy.draw(generator, 8).indices[4:]].mean() for _ in range(60)])
    assert share < np.mean(hard)


def test_real_and_digital_slices_have_their_shares(data):
    """The scans of three of four patients become real ones, without a true map."""
    blind = datasets.SliceDataset([replace(scan, has_map=int(scan.patient) % 4 == 1) for scan in data.scans])
    sampler = slice_batches.BalancedSampler(blind, slice_batches.Sampling(hard_share=0.0, real_share=0.5))
    generator = np.random.default_rng(3)
    drawn = np.concatenate([blind.has_map[sampler.draw(generator, 8).indices] for _ in range(100)]).reshape(-1, 8)
    assert drawn[:, :4].mean() == pytest.approx(0.5, abs=0.08), "with calcium"
    assert drawn[:, 4:].mean() == pytest.approx(0.5, abs=0.08), "without"
    real = datasets.SliceDataset([replace(scan, has_map=False) for scan in data.scans])
    assert (
        len(slice_batches.BalancedSampler(real, slice_batches.Sampling(real_share=0.5)).draw(generator, 8).indices) == 8
    )


def test_calcium_is_taken_out_and_varied(data):
    """A twin is its positive slice less the true calcium; scaled calcium changes image and map equally."""
    sampler = slice_batches.BalancedSampler(data, slice_batches.Sampling(twin_share=1.0, calcium_scale=3.0))
    factors = []
    for seed in range(30):
        drawn = sampler.draw(np.random.default_rng(seed), 8)
        assert (drawn.indices[4:] == drawn.indices[:4]).all()
        assert (drawn.calcium[4:] == 0).all()
        factors += drawn.calcium[:4].tolist()
        # With a contrast of 6, a factor below 2/3 would hide it.
        assert min(factors) >= VISIBLE_CONTRAST_TO_NOISE / CONTRAST - 1e-6
    assert min(factors) < 0.7
    assert 2 < max(factors) <= 3
    changed = hu_of(data, drawn.indices, drawn.calcium)
    added = preprocessing.MAP_HU * data.true_map(drawn.indices)[:, 0]
    np.testing.assert_allclose(changed[:4, 0] - changed[4:, 0], drawn.calcium[:4, None, None] * added[:4], atol=0.6)
    assert added[:4].max() > 100
    # The neighbouring slice loses its calcium too.
    pair = np.nonzero(data.calcium[:-1] & data.calcium[1:])[0][:1]
    above = hu_of(data, pair, np.zeros(1))[0, 2]
    np.testing.assert_allclose(above, hu_of(data, pair + 1, np.zeros(1))[0, 0], atol=0.6)
    assert above.max() < hu_of(data, pair, np.ones(1))[0, 2].max() - 100


def test_cache_is_used_and_renewed(cohort, tmp_path):
    shutil.copytree(cohort / "patient_3", tmp_path / "data")
    (scan,) = datasets.find_scans([tmp_path / "data"])
    progress = []
    (folder,) = datasets.prepare([scan], "slices", tmp_path / "cache", progress=lambda *state: progress.append(state))
    assert progress == [(1, 1)]
    assert datasets.prepare([scan], "slices", tmp_path / "cache", progress=lambda *state: progress.append(state)) == [
        folder
    ]
    assert progress == [(1, 1)]
    os.utime(scan.ct, ns=(1, 1))
    assert datasets.prepare([scan], "slices", tmp_path / "cache") != [folder]


def test_dicom_scan_is_prepared_and_renewed(cohort, tmp_path):
    (scan,) = datasets.find_scans([cohort / "patient_3"])
    ct = read_ct(scan.ct)
    grid = {"spacing_mm": ct.image.GetSpacing(), "origin_mm": ct.image.GetOrigin()}
    for number, hu in ((3, ct.hu), (4, ct.hu // 2)):
        write_series(tmp_path / "dicom", hu, tags={"SeriesNumber": number}, name=f"{number}-{{}}.dcm".format, **grid)
    stored = replace(scan, ct=tmp_path / "dicom", series="3")
    (prepared, expected) = datasets.prepare([stored, scan], "slices", tmp_path / "cache")
    np.testing.assert_array_equal(datasets.load_slices(prepared).slices.hu, datasets.load_slices(expected).slices.hu)
    before = stored.fingerprint()
    assert replace(stored, series="4").fingerprint() != before
    os.utime(next((tmp_path / "dicom").glob("3-*")), ns=(1, 1))
    assert stored.fingerprint() != before


def test_map_on_another_grid_is_told(cohort, tmp_path):
    folder = shutil.copytree(cohort / "patient_0" / "scan_1", tmp_path / "data")
    image = sitk.ReadImage(folder / "heart.nii.gz")
    image.SetOrigin((5, 0, 0))
    sitk.WriteImage(image, folder / "calcium_map.nii.gz")
    with pytest.raises(DataError, match="not on the grid"):
        datasets.prepare(datasets.find_scans([tmp_path]), "slices", tmp_path / "cache")


@pytest.mark.parametrize("name", ["ct", "heart", "calcium_map"])
def test_damaged_images_are_told(cohort, tmp_path, name):
    folder = shutil.copytree(cohort / "patient_0" / "scan_1", tmp_path / "data")
    cut(folder / f"{name}.nii.gz")
    with pytest.raises(CTError, match=rf"{name}\.nii\.gz is truncated"):
        datasets.prepare(datasets.find_scans([tmp_path]), "slices", tmp_path / "cache")


def test_an_outlined_heart_is_prepared_for_the_territory_network(cohort, tmp_path):
    scan = datasets.find_scans([cohort])[0]
    (folder,) = datasets.prepare([scan], "heart", tmp_path)
    volume, image = outlined_volume(folder), read_ct(scan.ct).image
    assert volume.hu.shape == volume.heart.shape == volume.labels.shape
    expected = ScanGrid.over(image, TERRITORY_SPACING_MM).resample(sitk.GetArrayFromImage(image), -1024)
    np.testing.assert_allclose(volume.hu, expected, atol=0.5)
    assert volume.heart.sum() * 27 == pytest.approx(np.pi * 56**2 * 24, rel=0.05)  # in mm³
    assert (volume.labels == HEART_ONLY).all()


def drawn_slices(data, indices, calcium, neighbours=1, on_card=False):
    """A store and a batch of slices without random changes."""
    store = slice_batches.SliceStore(data)
    if on_card:
        store.load("cpu")
    drawn = slice_batches.SliceDraw(indices, np.asarray(calcium, np.float32), data.visible[indices])
    config = SliceClassifierConfig(neighbours=neighbours, position=True)
    still = augmentation.SliceAugmentation(224, 0, 0, 1, 0, 0, 0, 0)
    return store, slice_batches.draw_slices(store, drawn, config, still, np.random.default_rng(0), with_maps=True)


def hu_of(data, indices, calcium):
    return slice_batches.scaled_hu(*drawn_slices(data, indices, calcium)).numpy()


def test_slices_on_a_card_are_those_on_disk(data):
    indices = np.concatenate([np.nonzero(data.calcium)[0][:3], np.nonzero(~data.calcium)[0][:3]])
    calcium = np.array([0, 2, 1, 1, 1, 1])
    on_disk, on_card = (
        slice_batches.vary_slices(*drawn_slices(data, indices, calcium, 1, on), 224) for on in (False, True)
    )
    for stored, loaded in zip(on_disk, on_card, strict=True):
        assert torch.equal(stored, loaded)
    expected = data.true_map(indices)[:, 0] * calcium[:, None, None]
    np.testing.assert_allclose(on_card[1][:, 0].numpy(), expected.clip(0, 1), atol=1e-5)
    np.testing.assert_array_equal(on_card[1][:, 1].numpy() > 0.5, data.heart(indices))
    assert expected.max() > 0.1


def test_augmented_batches_equal_the_slow_form():
    g = np.random.default_rng(0)
    hu = ndimage.gaussian_filter(g.normal(0, 900, (8, 3, 60, 60)), (0, 0, 1, 1)).astype(np.float32)
    extra = np.clip(g.normal(0, 0.1, (8, 3, 1, 60)) * np.ones((60, 1)), -0.2, 0.2).astype(np.float32)
    maps = ndimage.gaussian_filter(g.random((8, 2, 60, 60)), (0, 0, 1, 1)).astype(np.float32)
    settings = augmentation.SliceAugmentation(crop=40, zoom=1.2)
    changes = augmentation.draw_slice_changes(8, 60, settings, np.random.default_rng(2), 3)
    assert 0 < len(changes["noisy"]) < 8
    tensors = map(torch.from_numpy, (hu, extra, maps))
    x, moved = augmentation.augment_slices(next(tensors), next(tensors), changes, 40, next(tensors))
    expected, expected_maps = slow_augmentation.slices(hu, extra, changes, 40, maps)
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(moved.numpy(), expected_maps, atol=2e-5)


def test_slices_without_a_label_are_left_out(cohort, tmp_path):
    folder = shutil.copytree(cohort / "patient_0" / "scan_1", tmp_path / "data" / "a")
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    for label in truth["slices"]:
        label["visible"] = {3: True, 6: False}.get(label["k"])
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    (scan,) = datasets.find_scans([tmp_path / "data"])
    assert scan.kind == "coronary"
    assert scan.shows_calcium()
    (prepared,) = datasets.prepare([scan], "slices", tmp_path / "cache")
    slices = datasets.load_slices(prepared)
    data = datasets.SliceDataset([slices])
    # Each 3 mm slice of the scan from k = 1 on is two slices of 1.5 mm.
    assert (data.index.tolist(), data.visible.tolist()) == ([4, 5, 10, 11], [True, True, False, False])
    assert data.position == pytest.approx((data.index + 0.5) / len(slices.slices))
    assert (data.read("hu", data.rows(np.array([0]))[0])[0] == slices.slices.hu[4 + preprocessing.MAX_NEIGHBOURS]).all()


def test_whether_calcium_shows_can_be_unknown(cohort, tmp_path):
    folder = shutil.copytree(cohort / "patient_3" / "scan_1", tmp_path / "a")
    assert not datasets.find_scans([tmp_path])[0].shows_calcium()
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    truth["slices"][0]["visible"] = None
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    with pytest.raises(DataError, match="Label its slices"):
        datasets.find_scans([tmp_path])[0].shows_calcium()
    truth["slices"][0]["visible"] = "yes"
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    with pytest.raises(DataError, match="not the truth of a scan"):
        datasets.find_scans([tmp_path])


def test_stored_uses_are_kept(cohort):
    scans = datasets.find_scans([cohort])
    uses = {"0": "training", "1": "validation", "2": "test", "3": "training"}
    used = [replace(scan, use=uses.get(scan.patient, "")) for scan in scans]
    for seed in range(4):
        training, validation = ({s.patient for s in part} for part in datasets.split_by_patient(used, 0.25, seed))
        assert {"0", "3"} <= training
        assert "1" in validation
        assert "2" not in training | validation
        assert training | validation == set("01345678") & {s.patient for s in scans}
    stored = [scan for scan in used if scan.use]
    assert {s.patient for s in datasets.split_by_patient(stored, 0.25, 0)[1]} == {"1"}
    for lacking in ("training", "validation"):
        with pytest.raises(DataError, match=f"stored for {lacking}"):
            datasets.split_by_patient(
                [replace(s, use="test" if s.use == lacking else s.use) for s in _two_each(stored)], 0.2, 0
            )
    with pytest.raises(DataError, match="stored for training and for validation"):
        datasets.split_by_patient([*stored, replace(stored[0], use="validation")], 0.2, 0)


def _two_each(scans):
    return [*scans, *(replace(scan, patient=f"{scan.patient}b") for scan in scans)]
