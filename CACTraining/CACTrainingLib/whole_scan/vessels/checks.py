"""What else the study of vessel regression asks: other calcium, where networks look, and what choices are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.whole_scan.estimates import NONE_BELOW

from ...experiments.results import NOT_RUN
from ...report.parts import Figure, Section, Table, count, heading, p_cell
from ...statistics.bootstrap import Bootstrap, Found, exact_proportion, mean, paired_difference, quantile
from . import drawings
from .configurations import KINDS, Configuration
from .results import TOTAL, Predicted, Result, Study, rank
from .study_runs import BONE_HU, NEAR_MM, PICTURED, PICTURES, REGIONS
from .tables import Shown

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

CALLED = (NONE_BELOW, 10.0, 100.0)
"""From which total on a patient is called coronary: a regression hardly ever says 0. First as whole-scan estimates
do."""

VARIANTS = {
    "augmentation": (
        "With and without augmentation",
        ("with", "without"),
        "The paper names augmentation with noise, blur and shifts as missing. Here it is on unless stated otherwise.",
    ),
    "published": (
        "As here, and as published",
        ("as here", "as published"),
        "As published: features are averaged only, nothing is augmented, and scores are learned as they are. Here their"
        " highest values are used beside their averages, where the preset has it so, and scans are augmented.",
    ),
}
"""Title of the table, of base and variant, and what is to be said, by table."""


def control_section(shown: Shown) -> Section | None:
    """Whether calcium elsewhere is called coronary. None where nobody has calcium elsewhere only."""
    study = shown.study
    none = study.scans.agatston.sum(1) == 0
    known = [places is not None for places in study.scans.elsewhere]
    held = np.array([bool(places) for places in study.scans.elsewhere])
    clean, own = none & known & ~held, none & held
    evaluated = {config.title: [r for r in shown.results[config] if r.test is not None] for config in shown.networks}
    evaluated = {title: results for title, results in evaluated.items() if results}
    if study.noncoronary_controls is None and not own.any():
        return None
    columns = ("Network", "Calcium elsewhere only", "No calcium at all", "Difference", "p", "Coronary calcium")
    rows: list[tuple[Entry, ...]] = []
    for limit in CALLED:
        rows.append(heading(f"Called coronary: a total of {limit:g} or more", columns))
        rows += _control_rows(study, evaluated, (own, clean, ~none), lambda weights, x, n=limit: mean(weights, x >= n))
    rows.append(heading("Median of the totals predicted, Agatston units", columns))
    rows += _control_rows(study, evaluated, (own, clean, ~none), lambda weights, x: quantile(weights, x, 0.5))
    note = (
        "Each network predicts patients that it was not trained on: those of --noncoronary-controls, those held out, "
        "and those of "
        "its own validation; mean over the networks of all folds."
    )
    table = Table("control", "Calcium that is not coronary", columns, tuple(rows), note)
    where = (
        f"{count(study.noncoronary_controls.names, 'scan')} of other patients (--noncoronary-controls)"
        if study.noncoronary_controls is not None
        else f"{count(int(own.sum()), 'scan')} of the same table"
    )
    text = (
        f"Calcium elsewhere only: {where}, with calcium or metal in or near the heart, none of it coronary. No calcium "
        f"at all: {count(int(clean.sum()), 'scan')} of the same table. A network that sums whatever is dense would "
        "call the first coronary.",
    )
    return Section("control", "Calcium that is not coronary", text, (table,))


Of = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of weights [resamples, scans] and predicted totals [scans]: float [resamples]."""


def _control_rows(
    study: Study, evaluated: Mapping[str, Sequence[Result]], groups: Sequence[np.ndarray], statistic: Of
) -> list[tuple[Entry, ...]]:
    own, clean, coronary = groups
    rows = []
    for title, results in evaluated.items():
        parts = [_joined(result.validation, result.test) for result in results]
        if study.noncoronary_controls is not None and study.other_weights is not None:
            found = [result.noncoronary_controls for result in results if result.noncoronary_controls is not None]
            elsewhere = _averaged(
                study.other_weights, found, np.ones(len(study.noncoronary_controls.names), bool), statistic
            )
        else:
            elsewhere = _averaged(study.weights, parts, own, statistic)
        none = _averaged(study.weights, parts, clean, statistic)
        change = paired_difference(elsewhere, none)
        last = _averaged(study.weights, parts, coronary, statistic).estimate
        rows.append((f"  {title}", elsewhere.estimate, none.estimate, change.estimate, p_cell(change.p), last))
    return rows


def _joined(first: Predicted, second: Predicted) -> Predicted:
    return Predicted(*(np.concatenate([getattr(first, n), getattr(second, n)]) for n in ("rows", "agatston")))


def _averaged(weights: np.ndarray, parts: Sequence[Predicted], wanted: np.ndarray, statistic: Of) -> Found:
    """A statistic of the totals of some scans, averaged over networks. wanted: bool [scans]."""
    values, rows = [], set()
    for part in parts:
        own = wanted[part.rows]
        rows |= set(part.rows[own].tolist())
        if own.any():
            values.append(statistic(np.take(weights, part.rows[own], 1), part.agatston[own].sum(1)))
    n = len(rows)
    if not values:
        return Found(np.full(len(weights), np.nan), 0, 0)
    drawn = np.mean(values, axis=0)
    exact = None
    if drawn[0] in (0.0, 1.0) and np.ptp(drawn[np.isfinite(drawn)]) == 0:  # all or none: resamples all say the same
        exact = exact_proportion(bool(drawn[0]), n, n)
    return Found(drawn, n, n, exact)


def saliency_section(shown: Shown, folder: Path) -> Section | None:
    """Figure 3 of the paper, with numbers: where the answers come from. None where nothing was looked at."""
    with_saliency = {config: shown.results[config][0] for config in shown.networks if shown.results[config][0].saliency}
    weighted = {config: shown.results[config][0] for config in shown.networks if shown.results[config][0].slice_weights}
    if not with_saliency and not weighted:
        return None
    tables, figures, text = [], [], []
    if with_saliency:
        tables.append(_saliency_table(with_saliency, shown.study.seed))
        figures += _saliency_figure(with_saliency, folder)
        patients = max(len(result.saliency["names"]) for result in with_saliency.values())
        text.append(
            f"Saliency shows where a change of the image would change the prediction, not where calcium is; for "
            f"“Voxel sum” alone it is the score that the network assigns to each location. It was computed for "
            f"{count(patients, 'patient')} held out, with a score of 100 or more, by the network of the first fold. "
            "Where the input is cropped around the heart, it contains little bone."
        )
    if weighted:
        curves = [_weights_of(config, result) for config, result in weighted.items()]
        draw = partial(drawings.slice_weights, curves=curves)
        note = "Mean of the held-out patients; bands: one standard deviation. Network of the first fold."
        title = "Weights of the slices by squeeze-and-excite"
        figures.append(Figure("slice_weights", title, draw, note, (3.5 * min(2, len(curves)), 2.6)))
        text.append(f"[[slice_weights]] shows how much the weights differ between slices: {_said(curves[0])}.")
    return Section("saliency", "Saliency of the networks", tuple(text), tuple(tables), tuple(figures))


def _saliency_table(with_saliency: Mapping[Configuration, Result], seed: int) -> Table:
    titles = tuple(name[:1].upper() + name[1:] for name in REGIONS)
    columns = ("Network", *titles, "Near calcium, times its volume")
    rows: list[tuple[Entry, ...]] = []
    volumes = None
    for config, result in with_saliency.items():
        names, own = result.saliency["names"], np.array(result.saliency["volumes"])
        weights = Bootstrap(names, np.random.default_rng(seed)).weights(names)
        if volumes is None or volumes.shape != own.shape or not np.allclose(volumes, own):
            volumes = own
            rows.append(("Proportion of the volume", *(float(proportion) for proportion in own.mean(0)), None))
        proportions = np.array(result.saliency["shares"])
        found = [Found(mean(weights, proportions[:, n]), len(names), len(names)).estimate for n in range(len(REGIONS))]
        times = Found(mean(weights, proportions[:, 0]) / mean(weights, own[:, 0]), len(names), len(names))
        rows.append((config.title, *found, times.estimate))
    note = (
        f"Proportion of all saliency, mean over the patients. Near calcium: within {NEAR_MM:g} mm of true coronary "
        "calcium. "
        f"Heart: the rest of it. Bone: above {BONE_HU:g} HU outside the heart. Uniform saliency would give the "
        "proportion of the volume."
    )
    return Table("saliency_shares", "Location of the saliency", columns, tuple(rows), note)


def _saliency_figure(with_saliency: Mapping[Configuration, Result], folder: Path) -> list[Figure]:
    rows = []
    # One way to train of each kind: all would fill pages.
    for config, result in {
        config.kind: (config, result) for config, result in reversed(with_saliency.items())
    }.values():
        file = folder / PICTURES / f"{config.name}.npz"
        if not file.is_file():
            continue
        with np.load(file, allow_pickle=False) as content:
            found = [
                drawings.SaliencyPicture(
                    result.saliency["names"][n],
                    *(content[f"{part}_{n}"].astype(float) for part in ("grey", "saliency")),
                    content[f"near_{n}"],
                )
                for n in range(PICTURED)
                if f"grey_{n}" in content
            ]
        rows.insert(0, (config.title, found))
    if not rows:
        return []
    note = (
        "Slices with most true calcium; what is near it is outlined in blue. Saliency is relative to its highest value "
        "anywhere in the patient."
    )
    draw = partial(drawings.saliency_maps, rows=rows)
    height = 2.45 * len(rows)
    return [Figure("saliency_maps", "Saliency of the first patients", draw, note, (7, height))]


def _weights_of(config: Configuration, result: Result) -> drawings.SliceWeights:
    kept = result.slice_weights
    middle, sd = np.array(kept["mean"]), np.array(kept["sd"])
    height = (np.arange(len(middle)) - (len(middle) - 1) / 2) * kept["slice_mm"]
    return drawings.SliceWeights(config.title, height, middle, sd)


def _said(curve: drawings.SliceWeights) -> str:
    return (
        f"of {curve.title} they lie between {curve.middle.min():.2f} and {curve.middle.max():.2f}, and one slice’s "
        f"differs between patients by a standard deviation of {curve.sd.mean():.2f}"
    )


def variants_section(shown: Shown, table: str, configs: Sequence[Configuration], folds: int) -> Section:
    """A table of VARIANTS. configurations: base and variant of each kind, in turn. folds: of each, as planned."""
    study, (name, titles, said) = shown.study, VARIANTS[table]
    columns = ("Training", "Validation error", "Less base", "p", "Rank correlation", "Less base’s", "p of the rank")
    rows: list[tuple[Entry, ...]] = []
    for n in range(0, len(configs), 2):
        base, variant = configs[n : n + 2]
        rows.append(heading(base.title, columns))
        by_fold = [{r.fold: r.validation for r in shown.results.get(config, ())} for config in (base, variant)]
        shared = sorted(set(by_fold[0]) & set(by_fold[1]))[:folds]
        if not shared:
            rows += [(f"  {title}", NOT_RUN, *[None] * 5) for title in titles]
            continue
        parts = [[own[fold] for fold in shared] for own in by_fold]
        errors = [study.of(part, study.squared_error) for part in parts]
        ranks = [study.of(part, rank(TOTAL)) for part in parts]
        rows.append((f"  {titles[0]}", errors[0].estimate, None, None, ranks[0].estimate, None, None))
        change, other = paired_difference(errors[1], errors[0]), paired_difference(ranks[1], ranks[0])
        changes = (change.estimate, p_cell(change.p), ranks[1].estimate, other.estimate, p_cell(other.p))
        rows.append((f"  {titles[1]}", errors[1].estimate, *changes))
    note = (
        "Validation patients of the folds in which both were trained. Error: mean squared, thousandths. Rank "
        "correlation of the total, within folds. Differences are paired; p is not adjusted."
    )
    made = Table(table, name, columns, tuple(rows), note)
    return Section(table, name, (said, f"{count(folds, 'fold')} of each were to be trained."), (made,))


def grid_section(
    study: Study, grid: Mapping[Configuration, Result], configs: Sequence[Configuration], chosen: Mapping
) -> Section:
    """What learning rate and weight decay were tried, and chosen by the validation of the first fold."""
    columns = ("Learning rate", "Weight decay", "Validation error", "Best step", "Chosen")
    rows: list[tuple[Entry, ...]] = []
    kind = None
    for config in configs:
        if config.kind != kind:
            kind = config.kind
            rows.append(heading(KINDS[kind], columns))
        rate, decay = (f"{value:g}" for value in config.rates)
        if config not in grid:
            rows.append((f"  {rate}", decay, NOT_RUN, None, None))
            continue
        result, own = grid[config], chosen.get(config.kind) == config.rates
        rows.append((f"  {rate}", decay, study.error_of(result.validation), result.best_step, "yes" if own else "no"))
    note = "Mean squared error of one fold’s validation, thousandths. Batches are as the preset has them."
    table = Table("grid", "Grid search", columns, tuple(rows), note)
    text = (
        "All other trainings of a kind used the value chosen here; held-out patients had no part in the choice. In "
        "the fold on which it was chosen, the validation error is slightly optimistic.",
    )
    return Section("grid", "Grid search", text, (table,))
