"""Digital patients for the territory network, and patches as scanners would show them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import slow_augmentation
import torch
from scipy import ndimage

from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.preprocessing import TERRITORY_WINDOWS_HU
from CACScoringLib.quality.mass_calibration import HU_PER_MG_CM3_AT_120_KVP
from CACScoringLib.statistics.masks import dice
from CACTrainingLib.data import territory_patches
from CACTrainingLib.data.augmentation import as_tensors, blur_kernels, gathered
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort import territory_volumes

NUMBER = 100_002
"""Patient with arms beside the trunk, and plaque in the right coronary artery."""


@pytest.fixture(scope="module")
def volume():
    return territory_volumes.make_volume(NUMBER)


@pytest.mark.long
def test_a_volume_holds_a_chest_with_its_territories(volume):
    assert volume.hu.shape == volume.labels.shape == volume.heart.shape == territory_volumes.SHAPE
    assert 400 < volume.heart.sum() * territory_volumes.STEP_MM**3 / 1000 < 1500
    assert set(np.unique(volume.labels)) == set(range(11))
    assert (volume.labels[volume.heart] > 0).mean() > 0.99
    assert 0.1 < (volume.hu < -700).mean() < 0.9
    assert np.median(volume.hu[volume.heart]) > 0
    for side in (np.s_[..., :18], np.s_[..., -18:]):
        assert (volume.hu[side] > 400).any(), "the arm's bone"


@pytest.mark.long
def test_calcium_keeps_its_mass_and_lies_mostly_in_its_artery(volume):
    index, value, artery = volume.plaques
    patient = draw_patient(NUMBER, prevalence=territory_volumes.PREVALENCE, diverse=True)
    assert patient.mass_mg > 0
    mass = value.sum() * territory_volumes.STEP_MM**3 / 1000 / HU_PER_MG_CM3_AT_120_KVP
    assert mass == pytest.approx(patient.mass_mg, rel=0.02)
    rca = artery == TERRITORIES.index("RCA")
    assert value[rca & (volume.labels.ravel()[index] == 4)].sum() > 0.9 * value[rca].sum()
    voxels, added_hu = territory_volumes.dense_voxels(volume, 2.0, 0.0)
    assert added_hu.sum() == pytest.approx(2 * value.sum(), rel=1e-3)
    everywhere = np.ones(volume.hu.size, bool)
    everywhere[voxels] = False
    np.testing.assert_array_equal(
        territory_volumes.add_dense(volume).ravel()[everywhere], volume.hu.ravel()[everywhere]
    )


@pytest.mark.long
def test_possible_calcium_has_its_kinds_shares_and_lies_where_the_kind_does(volume):
    index, share, label = volume.possible
    shares = dict.fromkeys(territory_patches.CALCIFYING, 0.0)
    for territory, part in territory_volumes.POSSIBLE.values():
        shares[TERRITORIES.index(territory)] += part
    for number, expected in shares.items():
        assert share[label == number].sum() == pytest.approx(expected, rel=1e-3)
        inside = volume.labels.ravel()[index] == number
        # A left main is hardly longer than a voxel.
        assert share[(label == number) & inside].sum() > (0.4 if number == 1 else 0.7) * expected


@pytest.mark.long
def test_a_volume_is_made_once_and_read_as_it_was(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(territory_volumes, "make_volume", lambda number: volume)
    territory_volumes.territory_volume(7, tmp_path)
    monkeypatch.delattr(territory_volumes, "make_volume")
    again = territory_volumes.territory_volume(7, tmp_path)
    for name in ("hu", "labels", "heart"):
        np.testing.assert_array_equal(getattr(again, name), getattr(volume, name))
    for name in ("plaques", "deposits", "possible"):
        for read, written in zip(getattr(again, name), getattr(volume, name), strict=True):
            np.testing.assert_array_equal(read, written)
    assert [path.name for path in tmp_path.iterdir()] == [f"territories-v{territory_volumes.VERSION}-7.npz"]


@pytest.mark.long
def test_the_plain_patch_is_the_volume_around_the_heart(volume):
    patch, low = territory_patches.plain_patch(volume)
    assert patch.heart.sum() == volume.heart.sum()
    box = tuple(slice(a, a + territory_patches.SIZE) for a in low)
    assert np.array_equal(patch.labels.numpy(), volume.labels[box])
    bottom, top = TERRITORY_WINDOWS_HU[0]
    expected = np.clip((territory_volumes.add_dense(volume)[box] - bottom) / (top - bottom), 0, 1)
    np.testing.assert_allclose(patch.x[0].numpy(), expected, atol=1e-5)
    assert (
        np.abs(np.array(territory_patches.heart_centre(volume)) - np.array(low) - territory_patches.SIZE / 2).max()
        <= 0.5
    )


def test_places_at_a_border_lie_on_both_of_its_sides():
    labels = np.zeros((4, 4, 6), np.uint8)
    labels[..., 1:3], labels[..., 3:5] = TERRITORIES.index("LCX"), TERRITORIES.index("mitral annulus")
    (places,) = territory_patches.border_places(labels)
    assert set(np.unravel_index(places, labels.shape)[2]) == {2, 3}


@pytest.mark.long
def test_beyond_a_dedicated_scans_field_of_view_there_is_air_and_nothing_is_known(volume):
    settings = replace(
        territory_patches.TerritoryAugmentation(), dedicated_share=1.0, elsewhere_share=0.0, off_centre_mm=0.0
    )
    patches = [random_patch(volume, settings, n) for n in range(6)]
    for patch in patches:
        unknown = patch.labels == territory_patches.UNKNOWN
        assert (patch.x[:, unknown] == 0).all()
        assert not patch.heart[unknown].any()
        assert patch.labels[~unknown].max() <= 10
    assert max(float((patch.labels == territory_patches.UNKNOWN).float().mean()) for patch in patches) > 0.1


@pytest.mark.long
def test_without_changes_a_random_patch_shows_the_heart_as_it_is(volume):
    names = ("off_centre_mm", "elsewhere_share", "turn_degrees", "tilt_degrees", "displacement_mm", "dedicated_share")
    still = replace(territory_patches.TerritoryAugmentation(scale=1.0, cut_share=0.0), **dict.fromkeys(names, 0.0))
    patch = random_patch(volume, still, 3)
    plain, low = territory_patches.plain_patch(volume)
    moved = np.array(low) - np.array(territory_patches.heart_centre(volume)) + (territory_patches.SIZE - 1) / 2
    expected = ndimage.shift(plain.heart.numpy().astype(float), moved, order=1) > 0.5
    assert dice(patch.heart.numpy() > 0.5, expected) > 0.95


def random_patch(volume, settings, seed):
    batch = territory_patches.augment_patches(
        territory_patches.draw_patches([volume], settings, np.random.default_rng(seed))
    )
    return SimpleNamespace(**{name: values[0] for name, values in batch.items()})


def test_scanners_equal_the_slow_form(monkeypatch):
    monkeypatch.setattr(territory_patches, "SIZE", 32)
    g = np.random.default_rng(0)
    changes = [territory_patches._draw_scanner(territory_patches.TerritoryAugmentation(), g) for _ in range(8)]
    batch = gathered(changes)
    batch["blur"] = blur_kernels(batch["blur"])
    batch = {**as_tensors(batch), "seed": torch.tensor(5)}
    assert 0 < len(batch["thick_at"]) < 8
    assert 0 < len(batch["blur_at"]) < 8
    hu = ndimage.gaussian_filter(g.normal(0, 900, (8, 32, 32, 32)), (0, 2, 2, 2)).astype(np.float32)
    expected = slow_augmentation.scanners(hu, batch)
    np.testing.assert_allclose(
        territory_patches._vary_scanner(torch.from_numpy(hu), batch).numpy(), expected, atol=2e-3
    )  # HU


@pytest.mark.long
@pytest.mark.parametrize(("number", "is_surrounded"), [(100_000, True), (NUMBER, False)])
def test_patients_of_both_kinds_have_the_surroundings_that_their_traits_state(number, is_surrounded):
    patient, _, traits, _ = territory_volumes.draw_positioned(number)
    assert traits["surroundings"] == (patient.body.surroundings is not None) == is_surrounded
