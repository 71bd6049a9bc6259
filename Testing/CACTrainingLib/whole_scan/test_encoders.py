"""Tables of features: whose, in what order, and of which part of a scan."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.networks.territories import TerritoryNet, TerritoryNetConfig
from CACScoringLib.networks.van_velzen import SliceClassifier, SliceClassifierConfig
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan import encoder_files, encoders
from CACTrainingLib.whole_scan.encoder_files import CTFM, EncoderError, RadImageNet
from CACTrainingLib.whole_scan.encoders import features_of, file_work, own_work, radiomics_work
from CACTrainingLib.whole_scan.prepared import Prepared


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


@pytest.fixture
def small_networks(monkeypatch):
    """In place of the bundled ones: the fewest channels, weights drawn by lot."""
    torch.manual_seed(0)
    config = SliceClassifierConfig(width=2, residual_blocks=1, pooling="average+max", size=64)
    territories_network = TerritoryNet(TerritoryNetConfig(width=2, blocks=1)).eval()
    networks = SliceClassifier(config).eval(), config, territories_network
    monkeypatch.setattr(encoders, "_own_networks", lambda device: networks)
    return networks


def fake_preparation(monkeypatch, values: dict[str, dict[str, dict[str, float]]], failed=()):
    """values: features by kind of work and scan."""
    kept = {}

    def prepare(scans, folder, kind, work, key, workers, progress):
        for scan in scans:
            found = values[kind].get(scan.name)
            if found is not None:
                kept[kind, scan.name] = {"names": np.array(list(found)), "values": np.array(list(found.values()))}
        names = [scan.name for scan in scans]
        broken = {name: "broken" for name in names if name not in values[kind]}
        return Prepared({name: (kind, name) for name in names if name not in broken}, broken)

    monkeypatch.setattr(encoders, "prepare", prepare)
    monkeypatch.setattr(encoders, "load", lambda file: kept[file])
    monkeypatch.setattr(encoders, "_work_of", lambda *choices: (None, ""))


def test_tables_hold_the_same_scans_in_the_order_given(monkeypatch, tmp_path):
    row = {"heart_a": 1.0, "candidate_b": 2.0, "heart_c": 3.0}
    radiomics = {"x": row, "y": {name: 10 * value for name, value in row.items()}, "z": row}
    fake_preparation(monkeypatch, {"radiomics": radiomics, "own": {"x": {"e": 7.0}, "y": {"e": 8.0}}})
    scans = [TableScan(name, name, {"ct": tmp_path}) for name in ("z", "y", "x", "w")]
    tables, failed = features_of(scans, tmp_path, ["candidates", "own", "both", "heart"])
    assert list(tables) == ["candidates", "own", "both", "heart"]
    assert {table.scans for table in tables.values()} == {("y", "x")}
    assert tables["own"].values.tolist() == [[8.0], [7.0]]
    assert tables["heart"].features == ("heart_a", "heart_c")
    assert tables["heart"].values.tolist() == [[10, 30], [1, 3]]
    assert tables["candidates"].values.tolist() == [[20], [2]]
    assert set(tables["both"].features) == set(row)
    assert failed == {"w": "radiomics: broken", "z": "own: broken"}


def test_missing_weights_and_unknown_kinds_are_told(tmp_path):
    with pytest.raises(EncoderError, match="CT-FM are missing"):
        features_of([TableScan("x", "x", {"ct": tmp_path})], tmp_path, ["ct-fm"])
    with pytest.raises(ValueError, match="not a kind of features"):
        features_of([TableScan("x", "x", {"ct": tmp_path})], tmp_path, ["tarot"])


def test_radiomics_are_named():
    pytest.importorskip("mirp")
    found = radiomics_work(*heart())
    assert found["names"].shape == found["values"].shape
    assert found["names"].dtype.kind == "U"
    assert {str(name).split("_")[0] for name in found["names"]} == {"heart", "candidate"}


def test_own_features_are_those_of_the_hearts_slices(small_networks):
    scan, region = heart()
    found = dict(zip(*own_work(scan, region).values(), strict=True))
    # Channels of the slice classifier (4 width) and of the territories' network (8 width), mean and highest of each,
    # and two of the classifier's answer.
    assert len(found) == 2 * (8 + 16) + 2
    slices = encoders.heart_slices(scan.image, region.mask)
    network, config, _ = small_networks
    x = torch.from_numpy(encoders.slice_input(slices, np.arange(len(slices)), 0, False, config.size))
    with torch.inference_mode():
        z, features = network(x, logits=True, features=True)
    assert found["slices_mean_3"] == pytest.approx(float(features[:, 3].mean()), abs=1e-5)
    assert found["slices_highest_3"] == pytest.approx(float(features[:, 3].max()), abs=1e-5)
    assert found["slices_logit_highest"] == pytest.approx(float((z[:, 1] - z[:, 0]).max()), abs=1e-5)


def test_territory_networks_features_are_taken_in_the_heart(small_networks):
    scan, region = heart()
    x, inside = encoders._heart_box(scan, region)
    assert x.shape == (1, 2, 64, 64, 64)
    assert inside.shape == (8, 8, 8)
    assert 0 < inside.sum() <= 8  # about its 18 × 40 × 32 mm, on 24 mm
    hu = x[0, 0].reshape(8, 8, 8, 8, 8, 8).mean((1, 3, 5))
    assert hu[inside].mean() > hu[~inside].mean() + 0.05
    other, _ = encoders._heart_box(heart(80)[0], region)
    assert (other[0, 0] != x[0, 0]).any()


def test_ct_fm_is_shown_the_hearts_box(monkeypatch):
    monkeypatch.setattr(encoder_files, "CT_FM_WIDTH", 2)
    seen = []
    encoder = CTFM().eval()
    monkeypatch.setattr(encoders, "_encoder", lambda *which: lambda x: seen.append(x) or encoder(x))
    found = file_work(*heart(), kind="ct-fm", file=None)
    assert len(found["values"]) == 32
    (box,) = seen
    assert box.shape[0] == box.shape[1] == 1
    assert all(side % 16 == 0 for side in box.shape[2:])
    # 6 slices of 3 mm, 40 × 32 mm: all of the heart. Half-way from its 40 HU to the fat around it are -30.
    assert float((box > -30).sum()) == pytest.approx(6 * 40 * 32, rel=0.05)


def test_radimagenet_is_shown_every_second_slice(monkeypatch):
    seen = []

    def encoder(hu):
        seen.append(hu)
        return hu.mean((1, 2))[:, None] + torch.tensor([0.0, 5.0])

    monkeypatch.setattr(encoders, "_encoder", lambda *which: encoder)
    scan, region = heart()
    found = dict(zip(*file_work(scan, region, kind="radimagenet", file=None).values(), strict=True))
    slices = encoders.heart_slices(scan.image, region.mask)
    shown = torch.cat(seen)
    assert shown.shape == ((len(slices) + 1) // 2, 224, 224)
    means = shown.mean((1, 2)).numpy()
    assert found["mean_1"] == pytest.approx(means.mean() + 5, abs=1e-3)
    assert found["highest_0"] == pytest.approx(means.max(), abs=1e-3)


def test_radimagenet_is_told_a_window():
    hu = torch.tensor([-500.0, -160.0, 240.0, 900.0])
    seen = []
    encoder = RadImageNet.__new__(RadImageNet)
    torch.nn.Module.__init__(encoder)
    encoder.network = lambda x: seen.append(x) or x
    encoder(hu.view(1, 2, 2))
    assert seen[0].shape == (1, 3, 2, 2)
    assert seen[0][0, 1].flatten().tolist() == [-1, -1, 1, 1]
