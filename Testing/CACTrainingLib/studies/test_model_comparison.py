"""Models compared on the same cases: networks with known outputs, and wrong requests."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import AboveBlood, AllSlices
from study_tables import csv_rows
from torch import nn
from training_scans import HEART_SLICES, write_scan

from CACScoringLib.core.progress import Progress
from CACScoringLib.models import cards as models
from CACScoringLib.models.cards import Training, describe, load_model
from CACScoringLib.models.store import save_model, update_card
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.networks.registry import build
from CACTrainingLib.data.datasets import find_scans, load_slices, prepare
from CACTrainingLib.evaluation.jobs import StudyError
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.studies import model_comparison
from CACTrainingLib.studies.model_comparison import ComparisonSettings, compare_models
from CACTrainingLib.studies.model_measures import MapEvaluator, calcium_maps

SMALL = {
    "slices": SliceClassifierConfig(width=2, residual_blocks=1),
    "decomposition": GeneratorConfig(width=2, residual_blocks=1),
}
HEART = range(*HEART_SLICES.indices(10))
SCANS = 9
"""Scans of `cohort`: 8 patients, of whom patient 0 has two scans; scans 0, 1, 4 and 5 have coronary calcium."""


class Knows(nn.Module):
    """Network that reads the site of coronary calcium in `training_scans`, 26 mm anterior and 38 mm left of centre."""

    def forward(self, x):
        j, i = x.shape[-2] // 2 - 26, x.shape[-1] // 2 + 38
        peak = x[:, 0, j - 4 : j + 4, i - 4 : i + 4].amax((1, 2)) - 0.15
        return torch.stack([1 - peak, peak], 1).clamp(0, 1)


class Nothing(nn.Module):
    """Network that returns an empty map."""

    def forward(self, x):
        return 0 * x[:, :1]


HAND_MADE = {
    "knows": Knows(),
    "blind": AllSlices(),
    "third": AllSlices(),
    "bright": AboveBlood(),
    "nothing": Nothing(),
}


@pytest.fixture(autouse=True)
def hand_made(monkeypatch, tmp_path):
    """Replace the networks of models named in HAND_MADE; no model is installed or bundled."""

    def loaded(path, device):
        model = load_model(path, device)
        return replace(model, network=HAND_MADE.get(model.card.name, model.network))

    monkeypatch.setattr(model_comparison, "load_model", loaded)
    monkeypatch.setattr(models, "bundled_folder", lambda: tmp_path / "bundled")
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))


def card(network, name, folder, threshold=None) -> Path:
    about = Training("none", 0, {}, ""), {}, {} if threshold is None else {"slice_threshold": threshold}
    return save_model(
        build(SMALL[network]), describe(name, SMALL[network], "custom", *about, "Apache-2.0", "Tests only."), folder
    )


@pytest.fixture
def slices(tmp_path):
    return [card("slices", name, tmp_path / "made", 0.1) for name in ("blind", "knows")]


@pytest.fixture
def compare(tmp_path, cohort, cache):
    """Function that compares cards and returns the content of the output folder."""

    def run(cards, progress=None, **options):
        fields = {"data": cohort, "output": tmp_path / "out", "cache": cache, "workers": 1, "device": "cpu", **options}
        page = compare_models(ComparisonSettings(models=tuple(map(str, cards)), **fields), progress)
        return SimpleNamespace(
            folder=page.parent,
            text=page.read_text(encoding="utf-8"),
            index=json.loads((page.parent / "study.json").read_text(encoding="utf-8")),
            measures=rows(page.parent / "tables" / "model_measures.csv"),
            differences=rows(page.parent / "tables" / "model_differences.csv"),
            cases=csv_rows(page.parent / "cases.csv"),
        )

    return run


def rows(path):
    return {row["Measure"]: row for row in csv_rows(path)}


class TestSlices:
    @pytest.mark.long
    def test_measures_and_differences(self, compare, slices):
        comparison = compare(slices)
        auc = comparison.measures["Area under the ROC curve"]
        assert (float(auc["blind"]), float(auc["knows"])) == (0.5, 1.0)
        assert auc["knows n"] == str(sum(int(case["Slices"]) for case in comparison.cases if case["Model"] == "knows"))
        change = comparison.differences["Area under the ROC curve"]
        assert float(change["Difference"]) == 0.5
        assert (float(change["Difference low"]), float(change["Difference high"])) == (0.5, 0.5)
        assert float(change["p"]) < 0.002
        assert float(comparison.measures["Sensitivity"]["blind"]) == 1
        assert float(comparison.measures["Specificity"]["blind"]) == 0
        low, high = (float(comparison.measures["Sensitivity"]["blind " + end]) for end in ("low", "high"))
        assert (round(low, 2), high) == (0.4, 1.0), "exact, of the four patients who have such slices"

    def test_table_of_models_names_where_each_comes_from(self, compare, slices, tmp_path):
        comparison = compare([card("slices", "third", tmp_path / "bundled", 0.1), slices[0]])
        assert [row["From"] for row in csv_rows(comparison.folder / "tables" / "models.csv")] == ["bundled", "file"]

    def test_without_a_threshold_only_the_curve(self, compare, slices, tmp_path):
        comparison = compare([slices[0], card("slices", "knows", tmp_path / "other")])
        assert "threshold are missing for models" in comparison.text
        assert comparison.measures["Sensitivity"]["knows"] == ""
        assert list(comparison.differences) == ["knows", "Area under the ROC curve"]


class TestMaps:
    def test_measures_and_differences(self, compare, tmp_path):
        comparison = compare([card("decomposition", name, tmp_path / "made") for name in ("nothing", "bright")])
        value = {name: (float(row["nothing"]), float(row["bright"])) for name, row in comparison.measures.items()}
        assert value["Overlap of map and true map"][0] == 0
        assert 0.2 < value["Overlap of map and true map"][1] < 1
        assert value["Mass found / true, scans with coronary calcium"][0] == 0
        wrong = comparison.measures["Mass found per scan without coronary calcium, HU·mm³"]
        assert float(wrong["nothing"]) == 0 < float(wrong["bright"]), "valves are bright too"
        assert wrong["bright n"] == "4"
        ranks = comparison.differences["Rank correlation with true mass, scans"]
        assert ranks["Difference"] == "nan", "all masses of the empty map are the same"
        assert "not defined" in comparison.text

    def test_maps_are_those_of_the_slices_as_scoring_sees_them(self, cohort, cache, tmp_path):
        scan = next(s for s in find_scans([cohort]) if s.kind == "coronary")
        (folder,) = prepare([scan], "slices", cache)
        prepared = load_slices(folder)
        model = load_model(card("decomposition", "bright", tmp_path), "cpu")
        model = replace(model, network=HAND_MADE["bright"])
        masses = pd.DataFrame(MapEvaluator().run(prepared, [model]))
        with_calcium = masses[masses.true > 0]
        assert with_calcium.near.to_numpy() == pytest.approx(with_calcium.true.to_numpy(), rel=0.4)
        assert (masses.common <= np.minimum(masses.mass, masses.true) + 1e-6).all()
        full = calcium_maps(model, prepared, np.arange(len(prepared.slices)))
        free = update_card(card("decomposition", "free", tmp_path), {"floor_hu": 300.0, "min_healthy_hu": None}, {})
        ruled = replace(model, card=models.read_card(free))
        above = calcium_maps(ruled, prepared, np.arange(len(prepared.slices)))
        assert above.max() == pytest.approx(full.max())
        assert above[above > 0].min() >= 300 > full[full > 0].min()


class TestProject:
    @pytest.fixture
    def project(self, tmp_path):
        """Patients a, b and c to test on, d to train on; without truth, labelled by eve."""
        project = Project.create(tmp_path / "project", "mine")
        new = []
        for number, patient in enumerate("abcd"):
            folder = write_scan(tmp_path / "data" / patient, number, patient in "ab", valve=False)
            new.append(NewScan(patient, patient, folder / "ct.nii.gz"))
        project.add(new)
        project.set_use({"a": "test", "b": "test", "c": "test", "d": "training"})
        for number, scan in enumerate(project.scans):
            heart = sitk.ReadImage(str(tmp_path / "data" / scan.patient / "heart.nii.gz"))
            annotations.write_mask(project, scan.id, "eve", "heart", heart)
            labels = annotations.slice_annotations(project, scan.id, "eve")
            for k in HEART:
                is_visible = k in (3, 4) and number < 2
                labels.set(k, SliceLabel.VISIBLE if is_visible else SliceLabel.NOT_VISIBLE)
        return project

    def test_the_scans_of_one_use_by_their_labels(self, project, compare, slices):
        comparison = compare(slices, data=project.folder)
        assert {case["Patient"] for case in comparison.cases} == {"a", "b", "c"}
        assert float(comparison.measures["Area under the ROC curve"]["knows"]) == 1
        assert "for test of the project “mine”." in comparison.text
        assert "3 scans of 3 patients could be used" in comparison.text
        assert "fewer than 5 patients" in comparison.text
        assert comparison.measures["Area under the ROC curve"]["knows low"] == "nan"
        assert "Digital patients" not in comparison.text

    def test_scans_that_cannot_be_used_are_named(self, project, compare, slices, tmp_path):
        folder = write_scan(tmp_path / "data" / "bare", 9, True, valve=False)
        project.add([NewScan("bare", "bare", folder / "ct.nii.gz")])
        project.set_use({"bare": "test"})
        project.scans[1].ct.unlink()
        comparison = compare(slices, data=project.folder)
        reasons = {row["Scan"]: row["Why"] for row in csv_rows(comparison.folder / "tables" / "scans_left_out.csv")}
        assert reasons == {"bare": "it has no labels and no heart", "b": "its CT is not where it was"}
        assert {case["Patient"] for case in comparison.cases} == {"a", "c"}

    @pytest.mark.long
    def test_a_model_trained_on_the_patients_raises_a_warning(self, project, compare, slices):
        folder = slices[1].with_name("knows.training")
        folder.mkdir()
        lines = ["use,patient,kind,sha256", "training,a,coronary,1", "training,d,clean,2", "validation,b,coronary,3"]
        (folder / "data.csv").write_text("\n".join(lines), encoding="utf-8")
        warnings = []
        progress = Progress()
        progress.warning = warnings.append
        comparison = compare(slices, progress, data=project.folder)
        (warning,) = warnings
        assert warning.code == "trained-on-these-patients"
        assert warning.message.startswith("knows was trained or chosen on 2 of these 3 patients")
        assert warning.message in comparison.index["sections"][0]["text"]
        assert "not known which patients blind saw in training" in comparison.text


class TestRefused:
    @pytest.mark.parametrize(
        ("places", "message"),
        [
            ([0], "two models or more"),
            ([0, 2], "blind is for slices, map is for decomposition"),
            ([0, 0], "are the same model"),
        ],
    )
    def test_models_that_cannot_be_compared(self, compare, slices, tmp_path, places, message):
        cards = [*slices, card("decomposition", "map", tmp_path)]
        with pytest.raises(StudyError, match=message):
            compare([cards[n] for n in places])

    def test_a_scan_that_is_unfit_is_listed_and_stops_nothing(self, compare, slices, tmp_path):
        for number in range(2):
            write_scan(tmp_path / "some" / f"p{number}", number, True, valve=False)
        (tmp_path / "some" / "p1" / "ct.nii.gz").write_bytes(b"no image")
        comparison = compare(slices, data=tmp_path / "some")
        (left_out,) = csv_rows(comparison.folder / "tables" / "scans_left_out.csv")
        assert left_out["Scan"] == "1/1"
        assert len(comparison.cases) == 2
