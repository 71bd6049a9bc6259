"""What the study of vessel regression trains."""

from CACTrainingLib.whole_scan.vessels.configurations import (
    GRID,
    KINDS,
    TABLES,
    Configuration,
    VesselBudget,
    chosen_of,
    configurations_of,
    grid_runs,
    runs_of,
)


def test_every_way_has_a_name_of_its_own():
    budget = VesselBudget()
    configurations = {run.configuration for run in [*runs_of(TABLES, budget, {}), *grid_runs(budget)]}
    assert len({one.name for one in configurations}) == len(configurations)
    assert all(set(one.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for one in configurations)


def test_only_the_table_of_networks_sees_who_is_held_out():
    runs = runs_of(TABLES, VesselBudget(folds=3), {})
    models = set(configurations_of("models", VesselBudget(folds=3), {}))
    assert {run.configuration for run in runs if run.evaluated} == models
    assert not any(run.evaluated or run.saliency for run in grid_runs(VesselBudget()))
    assert all(run.grid for run in grid_runs(VesselBudget()))
    assert {run.fold for run in runs if run.saliency} == {0}


def test_nothing_is_trained_twice_and_first_come_all_networks():
    runs = runs_of(TABLES, VesselBudget(folds=3), {})
    assert len({(run.configuration, run.fold) for run in runs}) == len(runs)
    assert [run.fold for run in runs[: 2 * len(KINDS)]] == [0] * 2 * len(KINDS)
    # Networks by kind and output; without augmentation; as published, which for the ViT is without augmentation.
    assert len(runs) == 3 * (2 * len(KINDS) + len(KINDS) + 2)


def test_fewer_folds_of_a_table():
    runs = runs_of(TABLES, VesselBudget(folds=4, only={"augmentation": 1, "published": 2}), {})
    plain = [run for run in runs if not run.configuration.augmented and run.configuration.kind == "voxel-sum"]
    published = [run for run in runs if not run.configuration.augmented and run.configuration.kind == "vit"]
    assert [run.fold for run in plain] == [0]
    assert [run.fold for run in published] == [0, 1]


def test_pairs_of_the_side_tables_differ_in_what_they_say():
    budget = VesselBudget(outputs=("log", "linear"))
    configurations = configurations_of("augmentation", budget, {})
    assert [(one.kind, one.augmented) for one in configurations[:2]] == [("cnn", True), ("cnn", False)]
    base, published = configurations_of("published", budget, {})[:2]
    assert base == Configuration("cnn", "log", "average+max")
    assert published == Configuration("cnn", "linear", "average", augmented=False)
    assert "voxel-sum" not in {one.kind for one in configurations_of("published", budget, {})}


def test_the_lowest_error_of_each_kind_is_chosen():
    grid = {Configuration("cnn", rates=rates): 5.0 - n for n, rates in enumerate(GRID)}
    grid |= {Configuration("vit", rates=rates): 1.0 + n for n, rates in enumerate(GRID)}
    chosen = chosen_of(grid)
    assert chosen == {"cnn": GRID[-1], "vit": GRID[0]}
    assert {one.rates for one in configurations_of("models", VesselBudget(kinds=("cnn",)), chosen)} == {GRID[-1]}
