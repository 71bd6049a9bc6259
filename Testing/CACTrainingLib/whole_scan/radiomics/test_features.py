"""Tables of features: whose, in what order, and of which part of a scan."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.models.preprocessing import heart_slices
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan.prepared import Prepared
from CACTrainingLib.whole_scan.radiomics import encoders, features
from CACTrainingLib.whole_scan.radiomics.encoders import CTFM
from CACTrainingLib.whole_scan.radiomics.features import FeatureTable, encoder_work, features_of, radiomics_work


def heart(value: int = 40) -> tuple[CTScan, HeartRegion]:
    hu = np.full((12, 40, 40), -100, np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[3:9, 10:30, 12:28] = 1
    hu[mask > 0] = value
    hu[:, :5] = -1000  # a CT shows air, and is not cut off at its densest
    hu[0, -1, -1] = 1500
    images = []
    for array in (hu, mask):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 3.0))
        images.append(image)
    return scan_from_image(images[0], Acquisition("made")), HeartRegion(images[1], None, "given")


def scans(tmp_path, *names):
    return [TableScan(name, name, {"ct": tmp_path}) for name in names]


def test_all_features_of_the_scans_that_have_all(monkeypatch, tmp_path):
    made = {"radiomics": {"heart_a": 1.0, "candidate_b": 2.0}, "ct-fm": {"mean_0": 7.0}}
    lost = {"radiomics": ["w"], "ct-fm": ["z"]}

    def prepare(scans, folder, kind, work, key, workers, progress):
        names = [scan.name for scan in scans if scan.name not in lost[kind]]
        return Prepared({name: (kind, name) for name in names}, dict.fromkeys(lost[kind], "broken"))

    def load(file):
        kind, name = file
        values = np.array(list(made[kind].values())) * (10 if name == "y" else 1)
        return {"names": np.array(list(made[kind])), "values": values}

    monkeypatch.setattr(features, "prepare", prepare)
    monkeypatch.setattr(features, "load", load)
    monkeypatch.setattr(features, "load_encoder", lambda kind, file: None)
    (tmp_path / "weights").touch()
    table, failed = features_of(scans(tmp_path, "z", "y", "x", "w"), tmp_path, {"ct-fm": tmp_path / "weights"})
    assert [scan.name for scan in table.scans] == ["y", "x"]
    assert table.names == ("heart_a", "candidate_b", "ct-fm_mean_0")
    assert table.values.tolist() == [[10, 20, 70], [1, 2, 7]]
    assert failed == {"w": "radiomics: broken", "z": "ct-fm: broken"}
    assert table.of_set("both") == ["heart_a", "candidate_b"]
    assert table.columns(table.of_set("ct-fm")).tolist() == [[70], [7]]


def test_rows_of_a_table(tmp_path):
    table = FeatureTable(
        tuple(scans(tmp_path, "a", "b")), ("candidate_count", PSEUDO_FEATURE), np.array([[5, 0], [1, 0.7]])
    )
    assert table.pseudo_labels.tolist() == [False, True], "a score of solid candidates"
    assert table.without(["a"]).scans == table.scans[1:]
    assert table.rows([1]).joined(table).values.tolist() == [[1, 0.7], [5, 0], [1, 0.7]]


def test_radiomics_are_named():
    pytest.importorskip("mirp")
    found = radiomics_work(*heart())
    assert found["names"].shape == found["values"].shape
    assert {str(name).split("_")[0] for name in found["names"]} == {"heart", "candidate"}
    assert features.HEART_ML in found["names"]


def test_ct_fm_is_shown_the_hearts_box(monkeypatch):
    monkeypatch.setattr(encoders, "CT_FM_WIDTH", 2)
    seen = []
    encoder = CTFM().eval()
    monkeypatch.setattr(features, "_encoder", lambda *which: lambda x: seen.append(x) or encoder(x))
    assert len(encoder_work(*heart(), kind="ct-fm", file=None)["values"]) == 32
    (box,) = seen
    assert all(side % 16 == 0 for side in box.shape[2:])
    # 6 slices of 3 mm, 40 × 32 mm: all of the heart. Half-way from its 40 HU to the fat around it are -30.
    assert float((box > -30).sum()) == pytest.approx(6 * 40 * 32, rel=0.05)


def test_radimagenet_is_shown_every_second_slice(monkeypatch):
    seen = []

    def encoder(hu):
        seen.append(hu)
        return hu.mean((1, 2))[:, None] + torch.tensor([0.0, 5.0])

    monkeypatch.setattr(features, "_encoder", lambda *which: encoder)
    scan, region = heart()
    found = dict(zip(*encoder_work(scan, region, kind="radimagenet", file=None).values(), strict=True))
    shown = torch.cat(seen)
    assert shown.shape == ((len(heart_slices(scan.image, region.mask)) + 1) // 2, 224, 224)
    means = shown.mean((1, 2)).numpy()
    assert found["mean_1"] == pytest.approx(means.mean() + 5, abs=1e-3)
    assert found["highest_0"] == pytest.approx(means.max(), abs=1e-3)
