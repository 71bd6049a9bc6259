"""The study of vessel regression as a whole, with trainings that are made up: what is kept, shown, and gone on with."""

import csv
import re
from dataclasses import replace

import pytest
from made_experiments import Counting, Warned, index_of, make_quick, sections_of, table_of
from vessel_trainings import fake_reader, fake_trainer, write_table

from CACScoringLib.core.tables import TableError
from CACTrainingLib.experiments.engine import PREDICTIONS
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.whole_scan.scan_table import read_scan_table
from CACTrainingLib.whole_scan.split import held_out
from CACTrainingLib.whole_scan.vessels.configurations import GRID, KINDS, VesselBudget
from CACTrainingLib.whole_scan.vessels.fitting import TRAINABLE
from CACTrainingLib.whole_scan.vessels.study import VesselStudySettings, evaluate_vessels

PATIENTS = 48


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 40)


def page_of(settings, train=fake_trainer, progress=None, read=None):
    return evaluate_vessels(settings, progress, train, read or fake_reader()).read_text(encoding="utf-8")


@pytest.fixture
def settings(tmp_path):
    table = write_table(tmp_path / "own" / "table.csv", PATIENTS)
    budget = VesselBudget(kinds=("cnn", "voxel-sum"), outputs=("log",), folds=2)
    return VesselStudySettings(table, tmp_path / "out", tables=("models",), budget=budget)


def test_the_whole_page(settings, tmp_path):
    noncoronary_controls = write_table(tmp_path / "others" / "table.csv", 12, first=1000, other=True)
    progress = Warned()
    everything = replace(settings, noncoronary_controls=noncoronary_controls, tables=(), budget=VesselBudget(folds=2))
    page = page_of(everything, progress=progress, read=fake_reader(("p4",)))
    assert index_of(settings)["digital"]
    assert sections_of(settings) == [
        *("goals", "data", "models", "errors", "control", "saliency", "augmentation", "published", "grid"),
    ]
    # One network does not fit into memory: it is said, and stops nothing else.
    assert "training-failed" in {warning.code for warning in progress.warnings}
    assert "2 of 20 trainings" in page
    # A scan without a heart is left out of everything, and said.
    assert "its heart was not found" in page
    assert ",p4," not in (settings.output / PREDICTIONS).read_text(encoding="utf-8")
    for published in ("9.8 ± 3.0", "10.8 ± 12.5", "8.6"):
        assert f">{published}</span>" in page
    assert "4 times as large" in page
    figures = {name.name for name in (settings.output / "figures").glob("*.svg")}
    assert figures >= {"loss_curves_linear.svg", "loss_curves_log.svg", "saliency_maps.svg", "slice_weights.svg"}


def test_goals_are_evaluated_by_the_held_out(settings, tmp_path):
    settings = replace(settings, data=write_table(tmp_path / "more" / "table.csv", 120))
    page_of(settings)
    rows = {row[0]: row for row in table_of(settings, "goals")}
    met = rows["Voxel sum, logarithm: at most 8.4"]
    assert met[-1] == ("yes" if float(met[1]) <= 8.4 else "no")
    assert int(float(met[4])) == len(held_out(read_scan_table(settings.data))[1])
    above = rows["Voxel sum, logarithm: above zero"]
    assert above[-1] == "yes"  # it knows the truth but for little noise
    assert float(above[2]) > 0
    assert rows["For comparison, always the mean"][-1] == ""


def test_what_is_kept_is_not_trained_again(settings):
    first, again = Counting(fake_trainer), Counting(fake_trainer)
    page_of(settings, first)
    assert len(first.done) == 4
    page_of(replace(settings, tables=("augmentation",)), again)
    assert len(again.done) == 4
    assert not any(run.configuration.augmented for run in again.done)
    assert "augmentation" in sections_of(settings)


def test_the_grid_chooses_for_all_else(settings):
    counting = Counting(fake_trainer)
    page = page_of(replace(settings, tables=("models", "grid")), counting)
    grid = [run for run in counting.done if run.grid]
    assert len(grid) == 2 * len(GRID)
    rows = [row for row in table_of(settings, "grid") if row[0].startswith(("0.0", "3e", "0.003"))]
    chosen = [row for row in rows if row[-1] == "yes"]
    assert len(chosen) == 2
    for kind, part in zip(("cnn", "voxel-sum"), (rows[: len(GRID)], rows[len(GRID) :]), strict=True):
        best = min((row for row in part if row[2] != "not run"), key=lambda row: float(row[2]))
        assert best[-1] == "yes"
        used = {run.configuration.rates for run in counting.done if not run.grid and run.configuration.kind == kind}
        assert used == {(float(best[0]), float(best[1]))}
    # Rates that gave no numbers are no reason to wait.
    assert sum(row[2] == "not run" for row in rows) == 4
    assert not re.search(r"\d of \d+ trainings", page)


def test_networks_wait_for_their_grid(settings):
    counting = Counting(fake_trainer)
    ended = Counting(
        fake_trainer, lambda run: run.configuration.kind == "voxel-sum" and run.configuration.rates != GRID[0]
    )
    chosen = replace(settings, tables=("models", "grid"))
    page_of(chosen, ended)
    assert {run.configuration.kind for run in ended.done if not run.grid} == {"cnn"}
    page_of(chosen, counting)
    assert len(counting.done) == len(GRID) - 1 + 2
    assert all(run.configuration.kind == "voxel-sum" and run.configuration.rates for run in counting.done)


def test_without_time_there_is_a_page_of_what_is_there(settings):
    page_of(settings)
    before = table_of(settings, "models_mse")
    counting = Counting(fake_trainer)
    page_of(replace(settings, minutes=0), counting)
    assert not counting.done
    assert table_of(settings, "models_mse") == before
    assert not (settings.output / "tables" / "failed.csv").exists()
    empty = page_of(replace(settings, output=settings.output / "new", minutes=0), counting)
    assert "4 of 4 trainings" in empty


def test_nobody_is_both_learned_from_and_evaluated_by(settings):
    counting = Counting(fake_trainer)
    page_of(replace(settings, budget=replace(settings.budget, seed=5)), counting)
    data = counting.data
    assert set(data.test) == set(held_out(read_scan_table(settings.data))[1])  # whatever the seed
    for learned, validated in data.folds:
        assert not set(learned) & set(validated)
        assert not (set(learned) | set(validated)) & set(data.test)
    assert sorted(name for _, validated in data.folds for name in validated) == sorted(
        set(data.agatston) - set(data.test)
    )


def test_calcium_elsewhere_is_held_against_none(settings, tmp_path):
    # Without --noncoronary-controls, by patients of the same table.
    page_of(settings)
    none = [float(row[4]) for row in table_of(settings, "control") if row[0] == "CNN, logarithm"]
    assert 12 not in none
    noncoronary_controls = write_table(tmp_path / "others" / "table.csv", 12, first=1000, other=True)
    page_of(replace(settings, noncoronary_controls=noncoronary_controls))
    rows = [row for row in table_of(settings, "control") if row[0] == "CNN, logarithm"]
    assert [float(row[4]) for row in rows] == [12] * 4
    assert all(0 <= float(row[1]) <= 1 for row in rows[:3])
    # Those of whom it may have learned, and those with coronary calcium, say nothing.
    with pytest.raises(StudyError, match="None of the 48 scans of --noncoronary-controls is of a new patient"):
        page_of(replace(settings, noncoronary_controls=settings.data))


def test_own_scans_have_no_truth(tmp_path, settings):
    table = write_table(tmp_path / "real" / "table.csv", PATIENTS, truth=False)
    read = fake_reader()
    page_of(replace(settings, data=table), read=lambda *a: replace(read(*a), digital=False))
    assert not index_of(settings)["digital"]
    assert "control" not in sections_of(settings)


def test_predictions_of_every_patient(settings):
    page_of(settings)
    with (settings.output / PREDICTIONS).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    test = held_out(read_scan_table(settings.data))[1]
    of_cnn = [row for row in rows if row["network"] == "CNN, logarithm"]
    assert sum(row["use"] == "held out" for row in of_cnn) == 2 * len(test)
    assert sorted(row["scan"] for row in of_cnn if row["use"] == "validation") == sorted(
        {f"p{n}" for n in range(PATIENTS)} - set(test)
    )
    first = next(row for row in rows if row["scan"] == "p5")
    assert sum(float(first[f"true_{artery}"]) for artery in ("LM", "LAD", "LCX", "RCA")) == pytest.approx(150, abs=0.1)


def test_contrast_is_left_out(settings, tmp_path):
    lines = settings.data.read_text(encoding="utf-8").splitlines()
    rows = [line + (",contrast" if n == 0 else ",1" if n < 5 else ",0") for n, line in enumerate(lines)]
    settings.data.write_text("\n".join(rows), encoding="utf-8")
    assert "4 scans with a contrast agent" in page_of(settings)


def test_other_patients_are_tested_on(settings, tmp_path):
    test = write_table(tmp_path / "test" / "table.csv", 16, first=500)
    page = page_of(replace(settings, test=test))
    assert "16 patients" in page
    assert table_of(settings, "scans")[1][1:3] == [str(PATIENTS)] * 2
    with pytest.raises(TableError, match="is in --test and is learned from"):
        page_of(replace(settings, test=settings.data))


def test_where_calcium_lies_is_shown_of_digital_patients_only(settings):
    budget = replace(settings.budget, kinds=("voxel-sum", "voxel-sum-supervised"))
    counting = Counting(fake_trainer)
    page_of(replace(settings, budget=budget), counting)
    assert {run.configuration.kind for run in counting.done} == {"voxel-sum", "voxel-sum-supervised"}

    def not_digital(*given):
        return replace(fake_reader()(*given), digital=False)

    counting = Counting(fake_trainer)
    page_of(replace(settings, budget=budget, output=settings.output / "other"), counting, read=not_digital)
    assert {run.configuration.kind for run in counting.done} == {"voxel-sum"}


def test_every_kind_has_a_title():
    assert tuple(KINDS) == TRAINABLE
