"""Lesions with a known source: what each holds, how they are kept, and how they are drawn and varied."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from images import image_of

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH
from CACScoringLib.scoring.lesion_network import LesionPatch, network_input
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACTrainingLib.data import lesion_rows
from CACTrainingLib.data.lesion_batches import LesionAugmentation, LesionData, plain_input, varied_input
from CACTrainingLib.data.lesion_rows import (
    ARTERY_KINDS,
    BLOOD_HU,
    ROW,
    ROW_SIZE,
    THICKEST_MM,
    Reading,
    annotated_shares,
    clean_rows,
    inserted_rows,
    kind_is_known,
    kind_shares,
    patient_rows,
    sources_of,
)
from CACTrainingLib.phantom.cohort.lesion_patients import OSTIUM_MM, draw_lesion_patient, draw_lesion_scan
from CACTrainingLib.phantom.scanner.response import Stamp
from CACTrainingLib.project.training_scan import TrainingScan


def rows_of(*kinds, volume_mm3=10.0):
    """Rows of lesions in the middle of a patch, of which the CT shows 400 HU in tissue of 40."""
    rows = np.zeros(len(kinds), ROW)
    rows["hu"] = 40
    middle = tuple(slice(n // 2 - 2, n // 2 + 2) for n in ROW_SIZE)
    rows["hu"][(slice(None), *middle)] = 400
    rows["mask"][(slice(None), *middle)] = 100
    rows["territories"][:, 1] = 100
    for row, kind in zip(rows, kinds, strict=True):
        row["shares"][LESION_KINDS.index(kind)] = 1
    rows["volume_mm3"] = volume_mm3
    return rows


def test_shares_are_those_of_the_density_in_a_lesion():
    hu = np.zeros((6, 20, 20), np.int16)
    hu[2, 5:8, 5:8] = 300 + BLOOD_HU
    hu[4, 12:14, 12:14] = 200
    image = sitk.GetImageFromArray(hu)
    lesions = find_lesions(image, np.where(hu > 0, np.uint8(Artery.LAD), 0), ScoringRules())
    stamps = {
        "RCA": [Stamp(2, 5, 5, np.full((3, 3), 100, np.float32))],
        "stent": [Stamp(2, 5, 5, np.full((3, 3), 50, np.float32)), Stamp(0, 0, 0, np.ones((2, 2), np.float32))],
    }
    shares = kind_shares(lesions.id_map, lesions.ids, hu, stamps)
    large, small = np.argsort([-lesion.voxels for lesion in lesions.lesions])
    named = {name: shares[:, LESION_KINDS.index(name)] for name in ("RCA", "stent", "noise")}
    assert [named[name][large] for name in named] == pytest.approx([1 / 3, 1 / 6, 1 / 2])
    assert named["noise"][small] == 1
    assert shares.sum(1) == pytest.approx([1, 1])


def test_shares_of_painted_lesions_are_those_of_the_annotators():
    id_map = np.zeros((3, 20, 20), np.uint16)
    places = [(0, 0), (0, 8), (0, 16), (1, 0), (1, 8), (2, 0), (2, 8)]
    for number, (k, j) in enumerate(places, 1):
        id_map[k, j : j + 2, 4:8] = number
    first, second = np.zeros((2, *id_map.shape), np.uint8)
    first[0, :4], first[0, 8:10] = Artery.LAD, Artery.OTHER
    first[0, 16, 4:6] = Artery.RCA  # a quarter of the lesion
    first[1, :2], second[1, :2] = Artery.LAD, Artery.RCA
    first[2, :2] = Artery.LM  # and the second annotator left it unpainted
    readings = [Reading(first, np.array([True, True, True])), Reading(second, np.array([False, True, True]))]
    shares = annotated_shares(id_map, range(1, 8), readings)
    np.testing.assert_array_equal(shares[0], [name == "LAD" for name in LESION_KINDS])
    for row in (shares[1], shares[3]):
        assert row[:ARTERY_KINDS].tolist() == [0.25] * ARTERY_KINDS, "coronary, its artery unknown or disputed"
    assert (shares[[4, 6], :ARTERY_KINDS] == 0).all()
    assert shares[[4, 6]].sum(axis=1) == pytest.approx(1)
    assert not shares[[2, 5]].any(), "painted in part, or disputed"
    assert kind_is_known(shares).tolist() == [True, *[False] * 6]
    assert not annotated_shares(id_map, range(1, 8), readings[1:])[0].any(), "its slice is not judged"


def test_sources_are_in_hu_by_kind():
    scanner = SimpleNamespace(calcium_hu_per_mg_cm3=1.5)
    plaque = Stamp(1, 2, 3, np.full((1, 1), 0.2, np.float32))
    stent, valve, root = (Stamp(0, 0, 0, np.full((1, 1), hu, np.float32)) for hu in (900, 500, 400))
    scan = SimpleNamespace(
        scanner=scanner,
        arteries={"LAD": [plaque]},
        elsewhere={"stent": [stent], "aortic valve": [valve], "aortic root": [root]},
    )
    sources = sources_of(scan)
    assert sources["LAD"][0].values == pytest.approx(0.2 * 1500)
    assert [stamp.values.item() for stamp in sources["aortic valve and root"]] == [500, 400]
    assert sources["stent"] == [stent]


def test_rows_are_written_once_and_read_back(tmp_path, monkeypatch):
    numbers = []
    rows = rows_of("RCA", "noise")
    monkeypatch.setattr(lesion_rows, "_rows_of_patient", lambda number, _: numbers.append(number) or rows)
    first = patient_rows(5_000_003, tmp_path, None)
    again = patient_rows(5_000_003, tmp_path, None)
    assert numbers == [5_000_003]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(again["shares"].argmax(1), [LESION_KINDS.index(x) for x in ("RCA", "noise")])


def test_a_scan_without_a_heart_or_room_for_calcium_has_no_lesions(tmp_path, monkeypatch):
    def fail(*_):
        raise CTError("No heart.")

    monkeypatch.setattr(lesion_rows, "_rows_of_patient", fail)
    monkeypatch.setattr(lesion_rows.phantom, "insert_lesions", fail)
    monkeypatch.setattr(lesion_rows.phantom, "clean_scan", lambda *_: None)
    monkeypatch.setattr(lesion_rows, "_background", lambda _: None)
    (tmp_path / "ct.nii.gz").touch()
    scan = TrainingScan(name="", patient="A0001", ct=tmp_path / "ct.nii.gz", heart=tmp_path / "ct.nii.gz")
    for _ in range(2):  # the second time from the file
        assert len(patient_rows(5_000_004, tmp_path, None)) == 0
        assert len(inserted_rows(scan, 3, tmp_path, None)) == 0


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
    assert max(thicknesses) <= THICKEST_MM
    for view in views:
        assert view.image.GetSpacing()[:2] == scan.image.GetSpacing()[:2]
        assert view.hu[:, :20].mean() == pytest.approx(scan.hu[:, :20].mean(), abs=3)
    noise = [view.hu[:, 2:16].std() for view in views]
    assert min(noise) < 14 < 22 < max(noise)


def test_what_is_dense_in_a_clean_scan_is_noise(tmp_path, monkeypatch):
    views = []

    def cut(ct, sources, _, generator):
        views.append((ct.hu.shape, sources))
        return rows_of("noise")

    monkeypatch.setattr(lesion_rows, "scan_rows", cut)
    path = tmp_path / "ct.nii.gz"
    sitk.WriteImage(speckled_scan().image, path)
    scan = TrainingScan(name="", patient="A0001", ct=path, heart=path)
    for view in (0, 1, 1):
        assert len(clean_rows(scan, view, tmp_path / "rows", None)) == 1
    assert views[0] == ((24, 40, 40), {})
    assert len(views) == 2, "kept in the cache"


def test_rows_of_another_version_are_refused(tmp_path):
    path = tmp_path / f"lesions-v{lesion_rows.VERSION}-5000005.npy"
    np.save(path, np.zeros(ROW.itemsize))
    with pytest.raises(CTError, match="Delete it"):
        patient_rows(5_000_005, tmp_path, None)


@pytest.mark.long
def test_patients_differ_and_repeat():
    patient, again = draw_lesion_patient(5_000_001), draw_lesion_patient(5_000_001)
    assert [plaque.middle_mm for plaque in patient.plaques] == [plaque.middle_mm for plaque in again.plaques]
    others = [draw_lesion_patient(5_000_000 + n) for n in range(8)]
    assert any(not other.plaques for other in others)
    assert max(len(other.plaques) for other in others) > 8
    assert any(p.vessel == "RCA" and p.middle_mm < OSTIUM_MM for other in others for p in other.plaques)
    assert draw_lesion_scan(5_000_001)[0] == draw_lesion_scan(5_000_001)[0]


def test_plain_input_is_what_the_network_sees_in_a_scan():
    row = rows_of("LAD")[0]
    cut = tuple(slice((n - p) // 2, (n + p) // 2) for n, p in zip(ROW_SIZE, LESION_PATCH, strict=True))
    patch = LesionPatch(
        row["hu"][cut].astype(np.float32), row["mask"][cut] / np.float32(100), np.zeros((11, 8, 12, 12), np.float32)
    )
    expected = network_input(patch)
    (inputs,) = plain_input(rows_of("LAD"))
    np.testing.assert_allclose(inputs[:3], expected[:3], atol=2e-3)
    assert inputs[3 + 1].numpy() == pytest.approx(1)


def test_territories_of_a_row_lie_where_its_voxels_do():
    rows = rows_of("LAD")
    rows["territories"][0] = 4 * np.arange(16)
    (inputs,) = plain_input(rows)
    # The patch begins 9 voxels after its row, which is 2.25 voxels of the territories.
    np.testing.assert_allclose(inputs[3, 0, 0, ::4], 4 * (np.arange(12) + 2.25) / 100, atol=1e-5)


def test_varied_input_keeps_the_lesion_and_differs():
    rows = rows_of("LAD", "LAD", "RCA")
    first = varied_input(rows, LesionAugmentation(), np.random.default_rng(1))
    assert first.shape == plain_input(rows).shape
    torch.testing.assert_close(first, varied_input(rows, LesionAugmentation(), np.random.default_rng(1)))
    assert not torch.equal(first[0], first[1])
    assert first[:, 3:].sum(1).numpy() == pytest.approx(1, abs=1e-4), "territories stay probabilities"
    middle = first[:, 1, 6:10, 20:28, 20:28]
    assert (middle.amax((1, 2, 3)) > 0.25).all(), "bright, near the middle"
    still = LesionAugmentation((0, 0, 0), 1, (0, 0, 0), 0, 0, 0, (2, 3), 0, 0, 0)
    inputs, expected = varied_input(rows, still, np.random.default_rng(1)), plain_input(rows)
    torch.testing.assert_close(inputs, expected, atol=0.02, rtol=0)  # no territory is impossible


def test_rare_kinds_and_large_lesions_are_drawn_more_often():
    many = rows_of(*["noise"] * 200)
    few = np.concatenate([rows_of("RCA", volume_mm3=0.0), rows_of("RCA", volume_mm3=500.0)])
    data = LesionData([many, np.zeros(0, ROW), few])
    chances = data.chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[200] > chances[0]
    assert chances[201] > 2 * chances[200]
    np.testing.assert_array_equal(data.rows(np.array([201, 0]))["volume_mm3"], [500, 10])


def test_annotated_lesions_and_clean_scans_take_their_share_of_a_batch():
    digital, annotated = rows_of("RCA", *["noise"] * 50), rows_of(*["noise"] * 60, *["LAD"] * 40)
    chances = LesionData([digital], clean=[rows_of(*["noise"] * 10)]).chances(clean_share=0.25)
    assert chances[51:].sum() == pytest.approx(0.25)
    assert chances[:51] == pytest.approx(0.75 * LesionData([digital]).chances())
    assert LesionData([digital]).chances(clean_share=0.25).sum() == pytest.approx(1)
    annotated["shares"][:60] = np.repeat([0, 1 / 12], [4, 12])
    chances = LesionData([digital], [annotated]).chances(0.4)
    assert [chances[51:].sum(), chances[51:111].sum()] == pytest.approx([0.4, 0.2])
    assert chances[:51] == pytest.approx(0.6 * LesionData([digital]).chances())
