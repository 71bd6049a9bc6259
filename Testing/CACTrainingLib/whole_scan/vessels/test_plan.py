"""What the study of vessel regression trains."""

import pytest

from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.whole_scan.vessels.plan import (
    GRID,
    KINDS,
    TABLES,
    Cell,
    Effort,
    Job,
    cells_of,
    chosen_of,
    chosen_tables,
    grid_jobs,
    jobs_of,
)


def test_every_way_has_a_name_of_its_own():
    effort = Effort()
    cells = {job.cell for job in [*jobs_of(TABLES, effort, {}), *grid_jobs(effort)]}
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(set(cell.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for cell in cells)


def test_only_the_table_of_networks_sees_who_is_held_out():
    jobs = jobs_of(TABLES, Effort(folds=3), {})
    models = set(cells_of("models", Effort(folds=3), {}))
    assert {job.cell for job in jobs if job.judged} == models
    assert not any(job.judged or job.looked_at for job in grid_jobs(Effort()))
    assert all(job.choosing for job in grid_jobs(Effort()))
    assert {job.fold for job in jobs if job.looked_at} == {0}


def test_nothing_is_trained_twice_and_first_come_all_networks():
    jobs = jobs_of(TABLES, Effort(folds=3), {})
    assert len({(job.cell, job.fold) for job in jobs}) == len(jobs)
    assert [job.fold for job in jobs[: 2 * len(KINDS)]] == [0] * 2 * len(KINDS)
    # Networks by kind and output; without augmentation; as published, which for the ViT is without augmentation.
    assert len(jobs) == 3 * (2 * len(KINDS) + len(KINDS) + 2)


def test_fewer_folds_of_a_table():
    jobs = jobs_of(TABLES, Effort(folds=4, only={"augmentation": 1, "published": 2}), {})
    plain = [job for job in jobs if not job.cell.augmented and job.cell.kind == "summed"]
    published = [job for job in jobs if not job.cell.augmented and job.cell.kind == "vit"]
    assert [job.fold for job in plain] == [0]
    assert [job.fold for job in published] == [0, 1]


def test_pairs_of_the_side_tables_differ_in_what_they_say():
    effort = Effort(outputs=("log", "linear"))
    cells = cells_of("augmentation", effort, {})
    assert [(cell.kind, cell.augmented) for cell in cells[:2]] == [("cnn", True), ("cnn", False)]
    base, published = cells_of("published", effort, {})[:2]
    assert base == Cell("cnn", "log", "average+max")
    assert published == Cell("cnn", "linear", "average", augmented=False)
    assert "summed" not in {cell.kind for cell in cells_of("published", effort, {})}


def test_the_lowest_error_of_each_kind_is_chosen():
    grid = {Cell("cnn", rates=rates): 5.0 - n for n, rates in enumerate(GRID)}
    grid |= {Cell("vit", rates=rates): 1.0 + n for n, rates in enumerate(GRID)}
    chosen = chosen_of(grid)
    assert chosen == {"cnn": GRID[-1], "vit": GRID[0]}
    assert {cell.rates for cell in cells_of("models", Effort(kinds=("cnn",)), chosen)} == {GRID[-1]}


def test_the_key_holds_all_that_a_result_depends_on():
    job = Job(Cell("cnn"), 0)
    keys = {
        job.key(Effort(), "a"),
        job.key(Effort(), "b"),
        job.key(Effort(seed=1), "a"),
        job.key(Effort(steps=10), "a"),
        job.key(Effort(folds=3), "a"),
        job.key(Effort(preset="paper"), "a"),
        Job(Cell("cnn"), 1).key(Effort(), "a"),
        Job(Cell("cnn"), 0, judged=True).key(Effort(), "a"),
        Job(Cell("cnn", rates=GRID[0]), 0).key(Effort(), "a"),
    }
    assert len(keys) == 9
    assert job.key(Effort(kinds=("cnn",)), "a") in keys  # what else is trained changes nothing


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kinds": ("resnet",)}, "no network 'resnet'"),
        ({"kinds": ()}, "--kinds"),
        ({"outputs": ("square",)}, "no output 'square'"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"folds": 1}, "2 folds or more"),
        ({"only": {"augmentation": 6}}, "1 to all of them"),
        ({"only": {"fusion": 1}}, "no table 'fusion'"),
    ],
)
def test_wrong_efforts_are_refused(wrong, said):
    with pytest.raises(StudyError, match=said):
        Effort(**wrong)


def test_tables_by_name():
    assert chosen_tables(()) == TABLES
    assert chosen_tables(("grid",)) == ("models", "grid")
    with pytest.raises(StudyError, match="no table 'fusion'"):
        chosen_tables(("fusion",))
