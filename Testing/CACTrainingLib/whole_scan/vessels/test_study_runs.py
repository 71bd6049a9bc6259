"""One training of the study with networks as small as can be; and where saliency is said to lie."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from training_scans import CORONARY, write_scan

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.networks import vessels as vessel_network
from CACScoringLib.networks.vessels import VesselNetConfig
from CACTrainingLib.training.run_folder import TrainingError
from CACTrainingLib.whole_scan.vessels import fitting as vessel_fitting
from CACTrainingLib.whole_scan.vessels.configurations import GRID, Configuration, VesselBudget, VesselRun
from CACTrainingLib.whole_scan.vessels.fitting import vessel_work
from CACTrainingLib.whole_scan.vessels.study_runs import (
    NEAR_MM,
    PICTURED,
    PICTURES,
    REGIONS,
    Data,
    SaliencyPatient,
    config_of,
    field_of,
    fit_settings_of,
    input_regions,
    trainer,
    with_calcium,
)

TINY = VesselNetConfig(slices=6, size=32, field="heart", field_mm=128.0, width=4, pooling="average+max", output="log")
PATIENTS = 8


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(vessel_network.PRESETS, "compact", TINY)


def scan_of(folder):
    region = HeartRegion(sitk.ReadImage(folder / "heart.nii.gz"), None, "given")
    return scan_from_image(sitk.ReadImage(folder / "ct.nii.gz"), Acquisition("made by hand")), region


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("scans")
    return [write_scan(base / f"p{n}", n, coronary=n % 2 == 0, valve=False) for n in range(PATIENTS)]


@pytest.fixture(scope="module")
def data(folders, tmp_path_factory):
    """Two held out, of whom the first has calcium and is looked at."""
    base = tmp_path_factory.mktemp("study")
    inputs, agatston = {}, {}
    for n, folder in enumerate(folders):
        inputs[f"p{n}"] = base / f"p{n}.npz"
        np.savez(inputs[f"p{n}"], **vessel_work(*scan_of(folder), TINY))
        agatston[f"p{n}"] = (0.0, 100.0 + 40 * n, 0.0, 20.0) if n % 2 == 0 else (0.0,) * 4
    np.savez(base / "regions.npz", **input_regions(*scan_of(folders[0]), TINY))
    calcium = sitk.Cast(sitk.ReadImage(folders[0] / "calcium_map.nii.gz") > 0, sitk.sitkUInt8)
    sitk.WriteImage(calcium, base / "calcium.nii.gz")
    rest = [f"p{n}" for n in range(2, PATIENTS)]
    saliency_patients = (SaliencyPatient("p0", {field_of(TINY): base / "regions.npz"}, base / "calcium.nii.gz"),)
    folds = ((tuple(rest[:4]), tuple(rest[4:])),)
    return Data({field_of(TINY): inputs}, agatston, folds, ("p0", "p1"), (), saliency_patients, base)


def test_where_things_lie(folders):
    scan, region = scan_of(folders[0])
    hu = sitk.GetArrayFromImage(scan.image)
    hu[:, 8:10, 20:28] = 700  # bone above the heart, in the first rows of the input
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(scan.image)
    found = input_regions(scan_from_image(image, scan.acquisition), region, TINY)["regions"]
    bone, heart = (found == REGIONS.index(name) for name in ("bone", "heart"))
    spacing = (TINY.slice_mm, *[TINY.field_mm / TINY.size] * 2)
    assert heart.sum() * np.prod(spacing) == pytest.approx(6 * np.pi * (14 * 4) ** 2 * 3, rel=0.03)  # six of its slices
    assert np.unique(np.argwhere(bone)[:, 1]).tolist() == [0, 1]
    assert bone.any((0, 1)).sum() == 8
    # However the scan lies in its file.
    turned = [sitk.DICOMOrient(one, "RAI") for one in (image, region.mask)]
    again = input_regions(scan_from_image(turned[0], scan.acquisition), replace(region, mask=turned[1]), TINY)[
        "regions"
    ]
    assert (again == found).mean() > 0.999


def test_near_calcium_is_within_the_distance(data):
    looked = data.saliency_patients[0]
    with np.load(looked.regions[field_of(TINY)]) as content:
        prepared = dict(content)
    spacing = (TINY.slice_mm, *[TINY.field_mm / TINY.size] * 2)
    near = with_calcium(prepared, looked.calcium, spacing) == REGIONS.index("near calcium")
    # Two slices hold 8 × 8 mm; within 5 mm of that on a grid of 4 mm lie its neighbours, but not those diagonally.
    # Slices next to it are 3 mm away, and 5 mm is 3 mm up and 4 mm aside.
    assert near.sum((1, 2)).tolist() == [12, 12, 12, 12, 0, 0]
    k, j, i = np.argwhere(near).mean(0)
    # Where the calcium was written, off the middle of the heart, which the input is centred on.
    heart = np.argwhere(prepared["regions"] == REGIONS.index("heart")).mean(0)
    off = (CORONARY[0].start + 0.5 - 23.5, CORONARY[1].start + 0.5 - 23.5)
    assert (j - heart[1], i - heart[2]) == pytest.approx(off, abs=0.2)
    assert k == pytest.approx(heart[0] - 1)
    assert NEAR_MM == 5


@pytest.mark.parametrize("kind", ["se-cnn", "voxel-sum"])
def test_one_training(data, kind):
    budget = VesselBudget(kinds=(kind,), folds=2, steps=4)
    done = trainer(data, budget)(VesselRun(Configuration(kind, "log"), 0, evaluated=True, saliency=True))
    assert json.loads(json.dumps(done)) == done
    assert done["test"]["names"] == ["p0", "p1"]
    assert np.shape(done["test"]["agatston"]) == (2, 4)
    assert np.shape(done["training"]["agatston"]) == (4, 4)
    assert done["validation"]["names"] == list(data.folds[0][1])
    assert "others" not in done
    assert done["steps"] == 4
    steps, _, validation = np.array(done["curves"]).T
    assert steps[-1] == 4
    # In squared Agatston units: of the same size as the scores' own squares.
    assert 0 < validation[-1] < 10 * max(max(scores) for scores in data.agatston.values()) ** 2
    looked = done["saliency"]
    assert looked["names"] == ["p0"]
    assert sum(looked["volumes"][0]) == pytest.approx(1)
    assert sum(looked["shares"][0]) == pytest.approx(1)
    with np.load(data.folder / PICTURES / f"{Configuration(kind, 'log').name}.npz") as content:
        assert content["grey_0"].shape == content["near_0"].shape == (32, 32)
        assert content["near_0"].any()
        assert f"grey_{PICTURED}" not in content
    assert (done["slice_weights"] is not None) == (kind == "se-cnn")
    assert not list((data.folder / "running").iterdir())


def test_the_same_job_gives_the_same(data):
    budget = VesselBudget(kinds=("cnn",), folds=2, steps=3)
    first, again = (trainer(data, budget)(VesselRun(Configuration("cnn", "linear"), 0)) for _ in range(2))
    assert first["validation"] == again["validation"]
    assert "test" not in first


def test_rates_that_give_nothing_end_no_grid(data, monkeypatch):
    def failing(*args):
        raise TrainingError("the loss is no number")

    monkeypatch.setattr(vessel_fitting, "fit_vessels", failing)
    do = trainer(data, VesselBudget(folds=2))
    assert do(VesselRun(Configuration("cnn", rates=GRID[0]), 0, grid=True)) == {
        "fold": 0,
        "useless": "the loss is no number",
    }
    with pytest.raises(TrainingError):
        do(VesselRun(Configuration("cnn"), 0))


def test_configurations_become_settings():
    configuration = Configuration("cnn", "linear", "average", augmented=False, rates=(0.003, 0.1))
    settings = fit_settings_of(configuration, VesselBudget(steps=7, seed=3), "cpu")
    assert (settings.config.kind, settings.config.output, settings.config.pooling) == ("cnn", "linear", "average")
    training = settings.training
    assert (training.learning_rate, training.weight_decay, training.augmentation) == (0.003, 0.1, None)
    assert (training.loop.steps, training.loop.seed) == (7, 3)
    assert fit_settings_of(Configuration("vit", "log"), VesselBudget(), "cpu").training.augmentation is not None


def test_kinds_that_see_the_same_share_it():
    fields = {kind: field_of(config_of(Configuration(kind), "compact")) for kind in ("cnn", "vit", "voxel-sum")}
    assert len(set(fields.values())) == 1
    assert field_of(replace(TINY, field_mm=100.0)) != field_of(TINY)
    assert field_of(replace(TINY, field="scan")) == field_of(replace(TINY, field="scan", field_mm=100.0))
