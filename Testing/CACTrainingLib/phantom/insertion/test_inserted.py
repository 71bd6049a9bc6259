"""Real scans with inserted lesions, in the folder layout of digital scans."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import ContrastError, InsertionError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.data.datasets import find_scans
from CACTrainingLib.phantom.anatomy.hearts.territories import TERRITORIES, territories
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.export import FILES, as_ct_scan
from CACTrainingLib.phantom.insertion import inserted
from CACTrainingLib.phantom.insertion.background import prepare_background
from CACTrainingLib.phantom.insertion.insertion import read_path
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

STILL = inserted.InsertedSettings(motion_scale=0.0, sigma_mm=0.7)
CHEST = "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz"


@pytest.fixture(scope="module")
def digital():
    """Digital scan of a heart without calcium, the same as CT, its heart mask, and its true territories."""
    patient = draw_patient(3, "M", prevalence=0.0)
    patient = replace(patient, distractors=())
    scanner, pose = Scanner(field_of_view_mm=340, matrix=320, noise_hu=12), ScanPose(motion_scale=0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(scanner, (-84.0, 66.0)))
    labels = territories(patient, pose, scan.grid)
    return scan, as_ct_scan(scan, patient), scan.grid.image(scan.heart.astype(np.uint8)), labels


@pytest.fixture(scope="module")
def background(digital):
    _, ct, heart, _ = digital
    return prepare_background(ct, heart, "someone")


@pytest.fixture(scope="module")
def folder(background, tmp_path_factory):
    return inserted.write_insertions(background, tmp_path_factory.mktemp("inserted"), 3, STILL)


@pytest.fixture(scope="module")
def chest(real_ct):
    """Real chest prepared for insertions, and the same smoothed."""
    scan = read_ct(real_ct(CHEST))
    background = prepare_background(scan, network=load_model(find_model("territories").path, "cpu"))
    return background, sitk.SmoothingRecursiveGaussian(scan.image, 1.0)


def truth_in(folder):
    return json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def test_the_folders_have_the_form_of_digital_scans(folder, background):
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    assert names == ["clean", "insertion_00000", "insertion_00001", "insertion_00002"]
    for name in names:
        assert sorted(path.name for path in (folder / name).iterdir()) == sorted([*FILES, inserted.TERRITORIES_FILE])
        truth, ct = truth_in(folder / name), read_ct(folder / name / "ct.nii.gz")
        assert np.allclose(ct.image.GetOrigin(), background.scan.image.GetOrigin(), atol=1e-3)
        calcium = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name / "calcium_map.nii.gz"))).astype(float)
        assert calcium.sum() * ct.voxel_volume_mm3 / 1000 == pytest.approx(truth["mass_mg"], rel=0.01, abs=1e-6)
        assert sum(lesion["mass_mg"] for lesion in truth["lesions"]) == pytest.approx(truth["mass_mg"])
        assert [s["k"] for s in truth["slices"]] == np.flatnonzero(background.heart.any((1, 2))).tolist()
        assert truth["patient"] == "someone"
    kinds = {scan.ct.parent.name: scan.kind for scan in find_scans([folder])}
    assert kinds == {"clean": "clean", **dict.fromkeys(names[1:], "coronary")}


def test_scans_differ_and_an_interrupted_run_goes_on(folder, background, tmp_path):
    masses = {truth_in(folder / f"insertion_0000{n}")["mass_mg"] for n in range(3)}
    assert len(masses) == 3
    progress = []
    inserted.write_insertions(background, tmp_path, 1, STILL)
    before = (tmp_path / "someone" / "insertion_00000" / "truth.json").stat().st_mtime_ns
    inserted.write_insertions(background, tmp_path, 2, STILL, progress=lambda *done: progress.append(done))
    assert progress == [(3, 3)]
    assert (tmp_path / "someone" / "insertion_00000" / "truth.json").stat().st_mtime_ns == before
    for n in range(2):
        for name in (*FILES, inserted.TERRITORIES_FILE):
            path = f"insertion_0000{n}/{name}"
            assert (tmp_path / "someone" / path).read_bytes() == (folder / path).read_bytes()
    with pytest.raises(InsertionError, match="other settings"):
        inserted.write_insertions(background, tmp_path, 2, replace(STILL, seed=1))
    with pytest.raises(InsertionError, match="another scan"):
        inserted.write_insertions(replace(background, heart=~background.heart), tmp_path, 2, STILL)


def test_failed_first_run_leaves_the_folder_free(background, tmp_path, monkeypatch):
    def fail(*_):
        raise InsertionError("Set sigma_mm.")

    with monkeypatch.context() as patch:
        patch.setattr(inserted, "clean_scan", fail)
        with pytest.raises(InsertionError, match="sigma_mm"):
            inserted.write_insertions(background, tmp_path, 0, STILL)
    inserted.write_insertions(background, tmp_path, 0, replace(STILL, seed=1))


def test_all_plaques_follow_a_given_path(background, tmp_path):
    path = np.array([[10.0, -40.0, -12.0], [20.0, -45.0, 0.0], [22.0, -40.0, 12.0]])
    with pytest.raises(InsertionError, match="Name the artery"):
        inserted.write_insertions(background, tmp_path, 1, STILL, path)
    settings = replace(STILL, artery="RCA", plaques=4)
    scan = inserted.insert_lesions(inserted.clean_scan(background, settings), background, 0, settings, path_mm=path)
    assert [plaque.artery for plaque in scan.plaques] == ["RCA"] * 4
    place = np.argwhere(scan.calcium_mg_cm3 > 20)[:, ::-1] * background.grid.spacing_mm + background.grid.origin_mm
    line = np.concatenate([np.linspace(a, b, 50) for a, b in itertools.pairwise(path)])
    assert np.linalg.norm(place[:, None] - line[None], axis=2).min(axis=1).max() < 8


def test_contrast_and_nonsense_are_refused(digital, tmp_path, background):
    _, ct, heart, _ = digital
    enhanced = sitk.Cast(ct.image + 150 * sitk.Cast(heart, sitk.sitkInt16), sitk.sitkInt16)
    with pytest.raises(ContrastError, match="without contrast only"):
        prepare_background(CTScan(enhanced, ct.acquisition), heart, "someone")
    with pytest.raises(InsertionError, match="patient a name"):
        prepare_background(ct, heart)
    with pytest.raises(InsertionError, match="no artery 'LDA'"):
        inserted.InsertedSettings(artery="LDA")
    with pytest.raises(InsertionError, match="no calcium of the nose"):
        inserted.InsertedSettings(deposits=("nose",))
    bare = replace(background, anatomy=None)
    for place, settings, message in (
        (bare, replace(STILL, plaques=0), "nothing to insert"),
        (background, replace(STILL, deposits=("aortic wall",)), "aortic wall cannot be inserted"),
        (bare, STILL, "need arteries"),
    ):
        with pytest.raises(InsertionError, match=message):
            inserted.write_insertions(place, tmp_path, 1, settings)


def test_own_territories_hold_the_inserted_plaques(background):
    clean = inserted.clean_scan(background, STILL)
    scan = inserted.insert_lesions(clean, background, 1, replace(STILL, plaques=8, deposits=()))
    labels = scan.territories
    in_territory, total = 0.0, 0.0
    for artery, stamps in scan.arteries.items():
        for s in stamps:
            patch = labels[s.k, s.j : s.j + s.values.shape[0], s.i : s.i + s.values.shape[1]]
            in_territory += float(np.where(patch == TERRITORIES[artery], s.values, 0).sum())
            total += float(s.values.sum())
    assert in_territory > 0.9 * total
    clean_labels, scan_labels = (set(np.unique(part)) for part in (clean.territories, labels))
    assert scan_labels == clean_labels
    assert {TERRITORIES[name] for name in ("LM", "aortic valve and root", "mitral annulus")} < scan_labels


def test_each_scan_can_have_a_look_of_its_own(background, tmp_path):
    settings = replace(STILL, vary=True, plaques=6, deposits=("mitral annulus",))
    folder = inserted.write_insertions(background, tmp_path, 3, settings)
    spacings = set()
    for n in range(3):
        truth, ct = truth_in(folder / f"insertion_0000{n}"), read_ct(folder / f"insertion_0000{n}" / "ct.nii.gz")
        look = truth["look"]
        assert ct.image.GetSize()[0] == look["matrix"]
        assert ct.image.GetSpacing()[0] == pytest.approx(look["field_of_view_mm"] / look["matrix"])
        assert ct.hu.min() >= look["air_hu"]
        spacings.add(ct.image.GetSpacing())
        calcium = sitk.GetArrayFromImage(sitk.ReadImage(folder / f"insertion_0000{n}" / "calcium_map.nii.gz"))
        assert calcium.sum(dtype=float) * ct.voxel_volume_mm3 / 1000 == pytest.approx(truth["map_mass_mg"], rel=1e-3)
        assert truth["map_mass_mg"] == pytest.approx(truth["mass_mg"], rel=0.1)
        heart = sitk.GetArrayFromImage(sitk.ReadImage(folder / f"insertion_0000{n}" / "heart.nii.gz")) > 0
        assert ct.hu[heart].mean() == pytest.approx(background.scan.hu[background.heart].mean(), abs=8)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(folder / f"insertion_0000{n}" / inserted.TERRITORIES_FILE))
        assert (labels[heart] > 0).mean() > 0.9
    assert len(spacings) == 3
    assert truth_in(folder / "clean")["look"] is None


def test_paths_are_read_in_lps(tmp_path):
    points = [[1.0, 2.0, 3.0], [4.5, 5.0, -6.0]]
    plain, headed, curve = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.mrk.json"
    plain.write_text("1,2,3\n4.5,5,-6\n", encoding="utf-8")
    headed.write_text("\ufeffx, y, z\n1,2,3\n\n4.5,5,-6\n", encoding="utf-8")
    assert read_path(plain).tolist() == points
    assert read_path(headed).tolist() == points
    for system, sign in (("LPS", 1), ("RAS", -1)):
        control_points = [{"position": [sign * x, sign * y, z]} for x, y, z in points]
        control_points.append({"position": [0, 0, 0], "positionStatus": "undefined"})
        markup = {"type": "Curve", "coordinateSystem": system, "controlPoints": control_points}
        curve.write_text(json.dumps({"markups": [markup]}), encoding="utf-8")
        assert read_path(curve).tolist() == points


def test_real_chests_take_plaques_in_fat_and_aortic_calcium(chest, tmp_path):
    background, smooth = chest
    folder = inserted.write_insertions(
        background, tmp_path, 1, inserted.InsertedSettings(plaques=0, deposits=("aortic wall",))
    )
    assert folder.name == "LIDC-IDRI-0002_nc_bin2_2p5mm_chest"
    truth = truth_in(folder / "insertion_00000")
    assert truth["mass_mg"] == truth["map_mass_mg"] == 0
    added = read_ct(folder / "insertion_00000" / "ct.nii.gz").hu.astype(float) - background.scan.hu
    in_hu = sum(d["mass_mg"] for d in truth["distractors"]) * 1000 * truth["calcium_hu_per_mg_cm3"]
    assert added.sum() * background.scan.voxel_volume_mm3 == pytest.approx(in_hu, rel=0.05)
    assert {scan.kind for scan in find_scans([folder])} == {"clean", "distractor"}
    paths = np.concatenate([vessel.path_mm for vessel in background.anatomy.usual.vessels.vessels])
    hu = [smooth[background.scan.image.TransformPhysicalPointToIndex(tuple(p))] for p in paths]
    # Arteries lie in fat or at the surface: not in lung or bone, and mostly not in muscle and liver.
    assert np.mean((np.array(hu) > -250) & (np.array(hu) < 80)) > 0.95
    assert np.mean(np.array(hu) < 0) > 0.5
