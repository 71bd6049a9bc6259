"""The study of vessel regression as sections of a page: the paper's table and figures, and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from ...experiments.results import NOT_RUN, lowered, met
from ...report import figures as study_figures
from ...report.parts import PUBLISHED, Figure, Section, Table, heading, p_cell
from ...statistics.bootstrap import Found, paired_difference
from ...statistics.patient_folds import sd_over_folds
from ..scan_table import ARTERIES
from . import drawings
from .configurations import KINDS, OUTPUTS, Configuration
from .results import (
    TOTAL,
    Comparator,
    Result,
    Study,
    always_the_mean,
    category_agreement,
    comparator_of,
    factors_alone,
    mean_curves,
    mean_error,
    median_error,
    normalised_curve,
    rank,
)

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

PAPER = "Kecoglu, Machine vision based scoring of coronary calcium: 212 non-gated CTs of COCA, 43 of them held out"
PUBLISHED_MSE = {
    "cnn": ("9.8 ± 3.0", "10.3 ± 12.2", "8.4"),
    "se-cnn": ("6.8 ± 3.8", "10.8 ± 12.5", "8.7"),
    "vit": ("10.4 ± 3.0", "10.5 ± 12.4", "8.6"),
}
"""Thousandths, by kind: training, validation and test."""
BEST_PUBLISHED = 8.4
"""Of them all, for a kind that is not published."""
PLACES = (*ARTERIES, "Total")
VOXEL_SUM_OVER = len(ARTERIES)
"""How many times as large errors are where they are summed over the arteries."""


@dataclass(frozen=True)
class Shown:
    """The trainings by configuration, in the order of the folds, and what they are held against.

    models: configurations of the table of networks. folds: of each, how many are planned. mean: always the mean;
    factors: regressions on age, sex and heart size, of scores and of their logarithms; best_factors: the one of them
    that ranks validated patients better.
    """

    study: Study
    results: Mapping[Configuration, Sequence[Result]]
    models: tuple[Configuration, ...]
    folds: int
    mean: Comparator
    factors: tuple[Comparator, ...]
    best_factors: Comparator | None

    @cached_property
    def networks(self) -> dict[Configuration, Comparator]:
        """Those that were trained."""
        return {
            config: comparator_of(config.title, self.results[config])
            for config in self.models
            if self.results.get(config)
        }

    @property
    def comparators(self) -> list[Comparator]:
        """Networks, then what they are held against."""
        return [*self.networks.values(), *self.factors, self.mean]

    @cached_property
    def best(self) -> Comparator | None:
        """The network that ranks validated patients best, among those that are trained to the end."""
        whole = [comparator for comparator in self.networks.values() if len(comparator.validation) == self.folds]
        return _best_ranking(self.study, whole)


def shown(
    study: Study, results: Mapping[Configuration, Sequence[Result]], models: Sequence[Configuration], folds: int
) -> Shown:
    """With the regressions fitted."""
    factors = tuple(r for log in (False, True) if (r := factors_alone(study, folds, log)) is not None)
    best = _best_ranking(study, factors)
    return Shown(study, results, tuple(models), folds, always_the_mean(study, folds), factors, best)


def _best_ranking(study: Study, comparators: Sequence[Comparator]) -> Comparator | None:
    ranks = [float(study.of(comparator.validation, rank(TOTAL)).values[0]) for comparator in comparators]
    return comparators[int(np.nanargmax(ranks))] if np.isfinite(ranks).any() else None


def goals_section(shown: Shown) -> Section:
    """What the study set out to show, met or missed, one row a network."""
    study, columns = shown.study, ("Goal", "Found", "p", "Met")
    title = "Mean squared error of held-out patients, thousandths: at most the published"
    rows: list[tuple[Entry, ...]] = [heading(title, columns)]
    errors = {
        comparator.title: study.of(comparator.test, study.squared_error).estimate
        for comparator in shown.comparators
        if comparator.test
    }
    limits = {
        config.title: float(PUBLISHED_MSE[config.kind][2]) if config.kind in PUBLISHED_MSE else BEST_PUBLISHED
        for config in shown.models
    }
    for name, found in errors.items():
        if name in limits:
            row = (f"  {name}: at most {limits[name]}", found, None, met(found, found.value <= limits[name]))
        else:
            row = (f"  For comparison, {lowered(name)}", found, None, None)
        rows.append(row)
    if shown.best_factors is not None:
        other = study.of(shown.best_factors.test, rank(TOTAL))
        rows.append(
            heading(f"Rank correlation of the total, minus that of {lowered(shown.best_factors.title)}", columns)
        )
        for comparator in shown.networks.values():
            change = paired_difference(study.of(comparator.test, rank(TOTAL)), other)
            reached = met(change.estimate, change.estimate.low > 0)
            rows.append((f"  {comparator.title}: above zero", change.estimate, p_cell(change.p), reached))
    evaluated = [row for row in rows if row[-1] in ("yes", "no")]
    count = sum(row[-1] == "yes" for row in evaluated)
    text = [f"{count} of {len(evaluated)} goals were met." if evaluated else "No network has been trained yet."]
    if shown.best is not None:
        own = [row for row in evaluated if str(row[0]).strip().startswith(f"{shown.best.title}:")]
        count = sum(row[-1] == "yes" for row in own)
        text.append(
            f"Of the networks, the one that ranks validated patients best is “{shown.best.title}”: it met {count} of "
            f"its {len(own)} goals."
        )
    text.append(
        "The paper does not say how it normalised its scores. Here a score is divided by the largest score of one "
        f"artery among the patients that were not held out, {study.scale:,.0f}: the error depends on that one "
        "patient. It"
        f" is a mean over the arteries; as equation 1 of the paper is written it would be a sum, {VOXEL_SUM_OVER} "
        "times as"
        f" large, and {sum(VOXEL_SUM_OVER * errors[n].value <= limit for n, limit in limits.items() if n in errors)} "
        "of "
        f"{len(set(limits) & set(errors))} networks would still stay at or below the published."
    )
    constant = errors.get(shown.mean.title)
    if constant is not None and constant.value <= BEST_PUBLISHED:
        text.append(
            "Always predicting the mean reaches the published error as well. On these scores that goal is not "
            "informative; the rank correlation and the variance explained are."
        )
    note = (
        "A numeric goal is met when the value itself reaches it, whatever its interval; a goal that compares is "
        "met when the 95 % interval of the difference excludes zero in the required direction. Of the regressions on "
        "age, sex and heart size, the one that ranks validated patients better is the comparator."
    )
    table = Table("goals", "Goals and results", columns, tuple(rows), note)
    return Section("goals", "Goals set before the study", tuple(text), (table,))


def models_section(shown: Shown) -> Section:
    """Table 1 of the paper, beside what needs no picture; each fold; and the loss curves, figure 2 of the paper."""
    study = shown.study
    columns = ("Network", "Training", "Validation", "Test", "Variance explained")
    rows: list[tuple[Entry, ...]] = []
    constant = study.of(shown.mean.test, study.squared_error)
    for kind in dict.fromkeys(config.kind for config in shown.models):
        rows += [
            _errors(study, shown.networks[config], constant)
            if config in shown.networks
            else (config.title, NOT_RUN, *[None] * 3)
            for config in shown.models
            if config.kind == kind
        ]
        if kind in PUBLISHED_MSE:
            rows.append((f"{PUBLISHED}: {KINDS[kind]}", *PUBLISHED_MSE[kind], None))
    rows.append(heading("Without any picture", columns))
    rows += [_errors(study, comparator, constant, "  ") for comparator in (*shown.factors, shown.mean)]
    note = (
        "Mean squared error of normalised scores, in thousandths; of training and validation mean ± standard deviation "
        "over the folds. Each fold's network predicts the held-out patients; the test is that of one network, averaged"
        f" over them. Variance explained: 1 minus the test error divided by that of always predicting the mean of the "
        f"training scans. Published: {PAPER}; other scans, normalised in an unknown way."
    )
    tables = [Table("models_mse", "Networks", columns, tuple(rows), note)]
    if shown.networks:
        tables.append(_folds_table(shown))
    text = [
        "CNN, SE-CNN and ViT are the paper's. “Voxel sum” is our own: one small network takes each slice with its "
        "neighbours, and its outputs are summed over the voxels, because calcium is additive; “supervised” was "
        "trained not only on the scores but also on the location of the calcium of each digital patient, which no "
        "published study had. All predict "
        "the scores of LM, LAD, LCX and RCA. “Logarithm” learns the logarithms of the scores, so that one patient "
        "with very much calcium does not dominate; its error is still that of the scores."
    ]
    lacking = sum(shown.folds - len(shown.results.get(config, ())) for config in shown.models)
    if lacking:
        text.append(
            f"{lacking} of {shown.folds * len(shown.models)} trainings are missing. Run the same command again."
        )
    return Section("models", "The networks", tuple(text), tuple(tables), _loss_figures(shown))


def _folds_table(shown: Shown) -> Table:
    columns = ("Network", "Fold", "Training", "Validation", "Test", "Steps", "Best step", "Minutes", "Weights")
    rows = []
    for config, comparator in shown.networks.items():
        for result in shown.results[config]:
            parts = (result.training, result.validation, result.test)
            errors = [None if part is None else shown.study.error_of(part) for part in parts]
            course = (result.steps, result.best_step, round(result.seconds / 60, 2))
            rows.append((comparator.title, result.fold + 1, *errors, *course, result.weights))
    note = "Mean squared errors in thousandths. Minutes of one processor core."
    return Table("models_folds", "Each fold", columns, tuple(rows), note)


def _errors(study: Study, comparator: Comparator, constant: Found, indent: str = "") -> tuple[Entry, ...]:
    parts = [
        _plus_minus([study.error_of(one) for one in each]) for each in (comparator.training, comparator.validation)
    ]
    if not comparator.test:
        return (indent + comparator.title, *parts, None, None)
    test = study.of(comparator.test, study.squared_error)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = Found(1 - test.values / constant.values, test.n, test.patients)
    return (
        indent + comparator.title,
        *parts,
        test.estimate,
        None if comparator.title == "Always the mean" else explained.estimate,
    )


_PLUS_MINUS = "\u00a0±\u00a0"
"""With spaces that no line is broken at."""


def _plus_minus(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{np.mean(values):.1f}"
    return f"{np.mean(values):.1f}{_PLUS_MINUS}{sd_over_folds(values):.1f}"


def _loss_figures(shown: Shown) -> tuple[Figure, ...]:
    level = float(shown.study.of(shown.mean.validation, shown.study.squared_error).values[0])
    figures = []
    for output in dict.fromkeys(config.output for config in shown.networks):
        panels = []
        for config in shown.networks:
            curves = [result.curves for result in shown.results[config] if len(result.curves)]
            if config.output == output and curves:
                steps, middle, sd = mean_curves([normalised_curve(curve, shown.study.scale) for curve in curves])
                title = KINDS[config.kind].replace(", ", ",\n")  # or it would be cut off
                panels.append(drawings.Losses(title, steps, middle, sd, level))
        if panels:
            note = "Mean over the folds; bands: one standard deviation. Training is on augmented scans, while the "
            note += "weights still move. Where a training stopped early, its last errors are continued. "
            note += "Very large errors are cut off."
            draw = partial(drawings.loss_curves, panels=panels)
            title = f"Loss curves{OUTPUTS[output]}"
            figures.append(Figure(f"loss_curves_{output}", title, draw, note, (7, 2.6)))
    return tuple(figures)


def errors_section(shown: Shown) -> Section:
    """Errors in Agatston units, rank correlations, their difference to age, sex and heart size, and κ."""
    study = shown.study
    comparators = [comparator for comparator in shown.comparators if comparator.test]
    tables = []
    for name, title, statistic, note in (
        (
            "mean_errors",
            "Mean absolute error, Agatston units",
            mean_error,
            "Dominated by the few with very much calcium.",
        ),
        ("median_errors", "Median absolute error, Agatston units", median_error, ""),
        ("ranks", "Rank correlation with the true score", rank, "Spearman, with mean ranks for ties."),
    ):
        rows = [(r.title, *(study.of(r.test, statistic(n)).estimate for n in range(TOTAL + 1))) for r in comparators]
        tables.append(Table(name, title, ("Predicted by", *PLACES), tuple(rows), note))
    if shown.best_factors is not None and shown.networks:
        tables.append(_differences(shown))
    rows = [(comparator.title, study.of(comparator.test, category_agreement).estimate) for comparator in comparators]
    note = "Cohen's κ with linear weights; categories 0, 1–99, 100–399 and from 400 of the total."
    tables.append(Table("kappa", "Agreement of categories", ("Predicted by", "κ"), tuple(rows), note))
    figures = _rank_figures(shown)
    text = (
        f"{len(study.held_out)} patients were held out and used for no choice.",
        "The true score is what the patient's calcium would give, not what a reader found in the image.",
    )
    return Section("errors", "Errors in Agatston units", text, tuple(tables), figures)


def _rank_figures(shown: Shown) -> tuple[Figure, ...]:
    """A panel for each output, and in it a mark for each kind and the regression without any picture."""
    panels = []
    for output, title in OUTPUTS.items():
        own = {KINDS[c.kind]: r for c, r in shown.networks.items() if c.output == output and r.test}
        if own and shown.best_factors is not None:
            own[shown.best_factors.title] = shown.best_factors
        series = {
            name: [shown.study.of(comparator.test, rank(n)).estimate for n in range(TOTAL + 1)]
            for name, comparator in own.items()
        }
        if series:
            panels.append(study_figures.Panel(f"Networks{title}", PLACES, series))
    if not panels:
        return ()
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="Rank correlation", reference=0.0)
    return (Figure("ranks_figure", "Rank correlation with the true score", draw, "Of held-out patients.", (7, 3.2)),)


def _differences(shown: Shown) -> Table:
    study, columns = shown.study, ("Network", *PLACES, "p of the total")
    rows = []
    for comparator in shown.networks.values():
        if comparator.test:
            changes = [
                paired_difference(study.of(comparator.test, rank(n)), study.of(shown.best_factors.test, rank(n)))
                for n in range(TOTAL + 1)
            ]
            rows.append((comparator.title, *(change.estimate for change in changes), p_cell(changes[-1].p)))
    title = f"Rank correlation minus that of {lowered(shown.best_factors.title)}"
    note = "On the same patients and resamples: paired. p is not adjusted for the number of comparisons."
    return Table("rank_differences", title, columns, tuple(rows), note)
