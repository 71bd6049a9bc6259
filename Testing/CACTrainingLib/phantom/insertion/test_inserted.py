"""Real scans with inserted lesions, written as digital scans are."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import ContrastError, CTScan
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.data.datasets import find_scans
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.export import FILES, as_ct_scan, image_on
from CACTrainingLib.phantom.cohort.labels import annotate
from CACTrainingLib.phantom.insertion import inserted
from CACTrainingLib.phantom.insertion.background import prepare_background
from CACTrainingLib.phantom.insertion.inserted import InsertedSettings, clean_scan, inserted_scan, write_insertions
from CACTrainingLib.phantom.insertion.insertion import InsertionError
from CACTrainingLib.phantom.insertion.vessel_paths import PathError, heart_fat, read_path
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

pytestmark = pytest.mark.long

STILL = InsertedSettings(motion_scale=0.0, sigma_mm=0.7)
CHEST = "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz"
LIVER = "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz"


@pytest.fixture(scope="module")
def digital():
    """A digital scan without calcium, as digital patient's scan and as CT with its heart mask."""
    patient = draw_patient(3, "M", prevalence=0.0)
    patient = replace(patient, distractors=())
    scanner, pose = Scanner(field_of_view_mm=340, matrix=320, noise_hu=12), ScanPose(motion_scale=0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(patient, scanner, pose, (-45.0, 45.0)))
    return scan, as_ct_scan(scan, patient), image_on(scan.grid, scan.heart.astype(np.uint8))


@pytest.fixture(scope="module")
def background(digital):
    _, ct, heart = digital
    return prepare_background(ct, heart, "someone")


@pytest.fixture(scope="module")
def folder(background, tmp_path_factory):
    return write_insertions(background, tmp_path_factory.mktemp("inserted"), 3, STILL)


@pytest.fixture(scope="module")
def chest(real_ct):
    """A real one, prepared for insertions."""
    return prepare_background(read_ct(real_ct(CHEST)))


def truth_in(folder):
    return json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def test_the_folders_have_the_form_of_digital_scans(folder, background):
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    assert names == ["clean", "insertion_00000", "insertion_00001", "insertion_00002"]
    for name in names:
        assert sorted(path.name for path in (folder / name).iterdir()) == sorted(FILES)
        truth, ct = truth_in(folder / name), read_ct(folder / name / "ct.nii.gz")
        assert np.allclose(ct.image.GetOrigin(), background.scan.image.GetOrigin(), atol=1e-3)
        calcium = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name / "calcium_map.nii.gz"))).astype(float)
        assert calcium.sum() * ct.voxel_volume_mm3 / 1000 == pytest.approx(truth["mass_mg"], rel=0.01, abs=1e-6)
        assert sum(lesion["mass_mg"] for lesion in truth["lesions"]) == pytest.approx(truth["mass_mg"])
        assert [s["k"] for s in truth["slices"]] == np.flatnonzero(background.heart.any((1, 2))).tolist()
        assert truth["patient"] == "someone"
    kinds = {scan.ct.parent.name: scan.kind for scan in find_scans([folder])}
    assert kinds == {"clean": "clean", **dict.fromkeys(names[1:], "coronary")}


def test_the_clean_scan_is_untouched(folder, background):
    assert np.array_equal(read_ct(folder / "clean" / "ct.nii.gz").hu, background.scan.hu)
    assert not any(s["visible"] for s in truth_in(folder / "clean")["slices"])
    assert not np.array_equal(read_ct(folder / "insertion_00000" / "ct.nii.gz").hu, background.scan.hu)


def test_scans_differ_and_an_interrupted_run_goes_on(folder, background, tmp_path):
    masses = {truth_in(folder / f"insertion_0000{n}")["mass_mg"] for n in range(3)}
    assert len(masses) == 3
    told = []
    write_insertions(background, tmp_path, 1, STILL)
    before = (tmp_path / "someone" / "insertion_00000" / "truth.json").stat().st_mtime_ns
    write_insertions(background, tmp_path, 2, STILL, progress=lambda *done: told.append(done))
    assert told == [(3, 3)]
    assert (tmp_path / "someone" / "insertion_00000" / "truth.json").stat().st_mtime_ns == before
    for n in range(2):
        for name in FILES:
            path = f"insertion_0000{n}/{name}"
            assert (tmp_path / "someone" / path).read_bytes() == (folder / path).read_bytes()
    with pytest.raises(InsertionError, match="other settings"):
        write_insertions(background, tmp_path, 2, replace(STILL, seed=1))
    with pytest.raises(InsertionError, match="another scan"):
        write_insertions(replace(background, heart=~background.heart), tmp_path, 2, STILL)


def test_a_failed_write_leaves_no_half_scan(background, tmp_path, monkeypatch):
    def full(folder, *whatever):
        (folder / "ct.nii.gz").touch()
        raise OSError("disk full")

    monkeypatch.setattr(inserted, "write_files", full)
    with pytest.raises(OSError, match="disk full"):
        write_insertions(background, tmp_path, 0, STILL)
    assert [path.name for path in (tmp_path / "someone").iterdir()] == ["insertions.json"]


def test_noise_is_measured_and_decides_what_is_visible(digital, background):
    scan, _, _ = digital
    inside = background.heart.any((1, 2))
    assert np.median(background.noise_sd_hu[inside]) == pytest.approx(np.median(scan.noise_sd_hu[inside]), rel=0.15)
    assert background.smoothed_noise_share == pytest.approx(scan.smoothed_noise_share, rel=0.35)
    clean = clean_scan(background, STILL)
    fat = heart_fat(clean.hu, background.heart, background.grid)
    one = inserted_scan(clean, background, 0, replace(STILL, plaques=6), fat)
    seen = [
        sum(s.visible for s in annotate(replace(one, noise_sd_hu=f * one.noise_sd_hu), np.random.default_rng(0)).slices)
        for f in (1, 1000)
    ]
    assert seen[0] > 0
    assert seen[1] == 0


def test_all_plaques_follow_a_given_path(background, tmp_path):
    path = np.array([[10.0, -40.0, -12.0], [20.0, -45.0, 0.0], [22.0, -40.0, 12.0]])
    with pytest.raises(InsertionError, match="Name the artery"):
        write_insertions(background, tmp_path, 1, STILL, path)
    settings = replace(STILL, artery="RCA", plaques=4)
    one = inserted_scan(clean_scan(background, settings), background, 0, settings, path_mm=path)
    assert [plaque.artery for plaque in one.plaques] == ["RCA"] * 4
    place = np.argwhere(one.calcium_mg_cm3 > 20) * background.grid.spacing_mm[::-1]
    place = place[:, ::-1] + background.grid.origin_mm
    line = np.concatenate([np.linspace(a, b, 50) for a, b in itertools.pairwise(path)])
    assert np.linalg.norm(place[:, None] - line[None], axis=2).min(axis=1).max() < 8


def test_contrast_and_nonsense_are_refused(digital, tmp_path, background):
    _, ct, heart = digital
    enhanced = sitk.Cast(ct.image + 150 * sitk.Cast(heart, sitk.sitkInt16), sitk.sitkInt16)
    with pytest.raises(ContrastError, match=r"without contrast only; here the blood measures \d+ HU\.$"):
        prepare_background(CTScan(enhanced, ct.acquisition), heart, "someone")
    with pytest.raises(InsertionError, match="patient a name"):
        prepare_background(ct, heart)
    with pytest.raises(InsertionError, match="no artery 'LDA'"):
        InsertedSettings(artery="LDA")
    with pytest.raises(InsertionError, match="nothing to insert"):
        write_insertions(background, tmp_path, 1, replace(STILL, plaques=0))


def grooved_heart():
    """A ball of muscle of 45 mm with a groove of fat on the right in front, and a pad of fat all around."""
    grid = Grid((60, 100, 100), (1.2, 1.2, 2.0), (-60.0, -60.0, -60.0))
    z, y, x = np.ix_(grid.z_mm(), grid.y_mm(), grid.x_mm())
    radius = np.sqrt(x**2 + y**2 + z**2)
    angle = np.degrees(np.arctan2(-y, x))
    hu = np.where(radius < 45, 45.0, -100.0)
    groove = (np.abs(angle - 135) < 6) & (radius > 32) & (radius < 45)
    hu[groove] = -100
    return hu, radius < 54, grid


@pytest.mark.parametrize("seed", range(5))
def test_paths_run_in_the_groove_not_in_the_pad(seed):
    hu, mask, grid = grooved_heart()
    path = heart_fat(hu, mask, grid).path("RCA", 20.0, np.random.default_rng(seed))
    assert len(path) > 6
    assert (np.linalg.norm(path, axis=1) < 46).all()
    assert np.abs(np.degrees(np.arctan2(-path[:, 1], path[:, 0])) - 135).max() < 9


def heart_beside_a_liver():
    """A ball of muscle of 45 mm with a groove in front and a liver that it touches below; above, fat lies between them.
    The mask holds part of the liver.
    """
    grid = Grid((70, 130, 130), (1.2, 1.2, 2.0), (-100.0, -80.0, -70.0))
    z, y, x = np.ix_(grid.z_mm(), grid.y_mm(), grid.x_mm())
    radius, angle = np.sqrt(x**2 + y**2 + z**2), np.degrees(np.arctan2(-y, x))
    hu = np.where(radius < 45, 45.0, -100.0)
    hu[(np.abs(angle - 100) < 6) & (radius > 32) & (radius < 45) & (z > -20)] = -100
    liver = (x + y < -40) & (z < 10) & (radius > np.where(z < -15, 45, 53))
    hu[liver] = 60
    return hu, (radius < 54) | (liver & (x > -75) & (y > -60) & (z > -40)), grid


@pytest.mark.parametrize("seed", range(5))
def test_fat_between_heart_and_liver_is_no_groove(seed):
    hu, mask, grid = heart_beside_a_liver()
    path = heart_fat(hu, mask, grid).path("RCA", 20.0, np.random.default_rng(seed))
    assert np.abs(np.degrees(np.arctan2(-path[:, 1], path[:, 0])) - 100).max() < 9
    assert (np.linalg.norm(path, axis=1) < 46).all()


def test_paths_keep_to_the_room_for_them():
    hu, mask, grid = grooved_heart()
    room = mask & (grid.z_mm() > 5)[:, None, None]
    for own, kept in ((room, True), (None, False)):
        fat = heart_fat(hu, mask, grid, own)
        lowest = min(fat.path("RCA", 20.0, np.random.default_rng(seed))[:, 2].min() for seed in range(5))
        assert (lowest > 5) == kept


def test_an_artery_without_a_groove_is_not_placed():
    hu, mask, grid = grooved_heart()
    with pytest.raises(PathError, match="LCX"):
        heart_fat(hu, mask, grid).path("LCX", 20.0, np.random.default_rng(0))


def test_paths_are_read_in_lps(tmp_path):
    wanted = [[1.0, 2.0, 3.0], [4.5, 5.0, -6.0]]
    plain, headed, curve = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.mrk.json"
    plain.write_text("1,2,3\n4.5,5,-6\n", encoding="utf-8")
    headed.write_text("\ufeffx, y, z\n1,2,3\n\n4.5,5,-6\n", encoding="utf-8")
    assert read_path(plain).tolist() == wanted
    assert read_path(headed).tolist() == wanted
    for system, sign in (("LPS", 1), ("RAS", -1)):
        points = [{"position": [sign * x, sign * y, z]} for x, y, z in wanted]
        points.append({"position": [0, 0, 0], "positionStatus": "undefined"})
        markup = {"type": "Curve", "coordinateSystem": system, "controlPoints": points}
        curve.write_text(json.dumps({"markups": [markup]}), encoding="utf-8")
        assert read_path(curve).tolist() == wanted


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "r,a,s\n1,2,3\n4,5,6", "heading"),
        ("a.csv", "1,2\n3,4", "2 numbers, not 3"),
        ("a.csv", "1,2,3", "1 points"),
        ("a.csv", "1,2,nan\n1,2,3", "finite"),
        ("a.mrk.json", "{", "no path"),
        ("a.mrk.json", '{"markups": []}', "no path"),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}', "IJK"),
    ],
)
def test_what_is_no_path_says_why(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(PathError, match=reason):
        read_path(tmp_path / name)
    with pytest.raises(PathError, match=r"no table .*absent\.csv.*x,y,z"):
        read_path(tmp_path / "absent.csv")
    with pytest.raises(PathError, match="FileNotFoundError"):
        read_path(tmp_path / "absent.mrk.json")


def test_a_real_chest_takes_aortic_calcium_as_a_distractor(chest, tmp_path):
    folder = write_insertions(chest, tmp_path, 1, InsertedSettings(plaques=0))
    assert folder.name == "LIDC-IDRI-0002_nc_bin2_2p5mm_chest"
    truth = truth_in(folder / "insertion_00000")
    assert truth["mass_mg"] == truth["map_mass_mg"] == 0
    added = read_ct(folder / "insertion_00000" / "ct.nii.gz").hu.astype(float) - chest.scan.hu
    volume = chest.scan.voxel_volume_mm3
    in_hu = sum(d["mass_mg"] for d in truth["distractors"]) * 1000 * truth["calcium_hu_per_mg_cm3"]
    assert added.sum() * volume == pytest.approx(in_hu, rel=0.05)
    # Not within the heart but beside it, where the region marks the aorta.
    assert added[chest.heart].max() < 0.5 * added.max()
    assert {scan.kind for scan in find_scans([folder])} == {"clean", "distractor"}


def test_no_artery_runs_in_the_liver_beside_a_real_heart(real_ct):
    """Where liver and effusion lie beside the heart, below slice 30, and in the heart region too."""
    background = prepare_background(read_ct(real_ct(LIVER)), network=load_model(find_model("heart").path, "cpu"))
    assert background.room.sum() < 0.9 * background.heart.sum()
    assert not (background.room & ~background.heart).any()
    fat = heart_fat(background.scan.hu, background.heart, background.grid, background.room)
    for seed in range(8):
        path = fat.path("RCA", 30.0, np.random.default_rng(seed))
        index = [background.scan.image.TransformPhysicalPointToIndex(tuple(p)) for p in path]
        assert min(k for _, _, k in index) > 30
        assert all(background.room[k, j, i] for i, j, k in index)


@pytest.fixture(scope="module")
def chest_fat(chest):
    """The chest without lesions, the fat of its heart, and the chest smoothed."""
    clean = clean_scan(chest, STILL)
    fat = heart_fat(clean.hu, chest.heart, chest.grid)
    return clean, fat, sitk.SmoothingRecursiveGaussian(chest.scan.image, 1.0)


@pytest.mark.parametrize("number", range(3))
def test_in_a_real_chest_every_plaque_lies_in_its_hearts_fat(chest, chest_fat, number):
    clean, fat, smooth = chest_fat
    one = inserted_scan(clean, chest, number, STILL, fat)
    voxel_cm3 = np.prod(chest.grid.spacing_mm) / 1000
    true_mg = sum(plaque.mass_mg for plaque in one.plaques)
    assert one.calcium_mg_cm3.sum(dtype=float) * voxel_cm3 == pytest.approx(true_mg, rel=0.02)
    for vessel in one.vessels:
        hu = [smooth[chest.scan.image.TransformPhysicalPointToIndex(tuple(p))] for p in vessel.path_mm]
        assert np.mean(hu) < -25
