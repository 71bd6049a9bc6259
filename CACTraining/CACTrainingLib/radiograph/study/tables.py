"""The study of radiographs as sections of a page: the papers' tables, with their figures beside where they gave any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...experiments.plots import areas_figure, roc_curve
from ...experiments.results import NOT_RUN, lowered
from ...report.curves import roc_bands
from ...report.figures import Panel
from ...report.parts import PUBLISHED, Figure, Section, Table, heading, p_cell
from ...statistics.bootstrap import Found, paired_difference
from ...statistics.patient_folds import sd_over_folds
from .calibration import calibration_section
from .configurations import (
    BACKBONES,
    BASE,
    ENHANCEMENTS,
    LABELS,
    SUPER_RESOLUTIONS,
    TABLES,
    THRESHOLD_TITLES,
    THRESHOLDS,
    Configuration,
)
from .results import Predictions, Study, factors_alone

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

SAEED = "Saeed et al. 2025, arXiv 2511.11093: 667 CTs of COCA, projected"
HONG = "Hong et al. 2025, 10.1016/j.jcct.2025.03.010: 10,230 patients, radiographs, 10 folds"
PUBLISHED_ROWS = {
    "radiographs, image alone": (0.74, 0.75, 0.79, None),
    "radiographs, image and clinical factors": (0.77, 0.79, 0.82, None),
    "projected CTs, best training method": (None, None, None, "0.754"),
}
PUBLISHED_EXTERNAL = {"radiographs, external patients": (0.78, 0.79, 0.81, None)}

IMAGE, ALONE, BOTH = "Image alone", "Clinical factors alone", "Image and clinical factors"


@dataclass(frozen=True)
class Comparator:
    """A way to predict, by its title. scores: [m, thresholds], of the radiographs and folds of predictions."""

    title: str
    predictions: Predictions
    scores: np.ndarray


def comparators_of(predictions: Predictions, alone: Predictions | None) -> list[Comparator]:
    """Image, clinical factors, both; the latter two where factors are known. alone: of all radiographs."""
    found = [Comparator(IMAGE, predictions, predictions.image)]
    if alone is not None:
        place = {row: n for n, row in enumerate(alone.rows)}
        own = [place[row] for row in predictions.rows]
        kept = replace(predictions, logits=alone.logits[own], image=alone.image[own], both=alone.image[own])
        found.append(Comparator(ALONE, kept, kept.image))
    if predictions.both is not None:
        found.append(Comparator(BOTH, predictions, predictions.both))
    return found


def sections_of(
    study: Study, tables: Sequence[str], trained: Mapping[Configuration, tuple[int, int]], digital: bool
) -> list[Section]:
    """One for each table that was asked for but the external one. trained: folds done and planned, by configuration."""
    made = []
    if BASE in study.predictions:
        comparators = comparators_of(study.predictions[BASE], factors_alone(study))
        made.append(thresholds_section(study, comparators, "thresholds", _THRESHOLDS_TEXT, PUBLISHED_ROWS))
        if digital:
            made.append(_strata_section(study, comparators))
        made.append(calibration_section(study, comparators, digital))
    for name, section in _SIDE.items():
        if name in tables:
            made.append(section(study, trained))
    return made


_THRESHOLDS_TEXT = (
    "Three thresholds of the Agatston score, by one network with three outputs, on the frontal view (PA). Published "
    "values are of other patients, real radiographs and another case mix: their size cannot be compared.",
)


def thresholds_section(
    study: Study,
    comparators: Sequence[Comparator],
    name: str,
    text: Sequence[str],
    published: Mapping[str, tuple[Entry, ...]],
    title: str = "Thresholds, with and without clinical factors",
) -> Section:
    """Areas under the curve of each comparator, their differences, and curves. published: rows of four, by title."""
    areas = {comparator.title: study.areas(comparator.predictions, comparator.scores) for comparator in comparators}
    columns = ("Predictor", *THRESHOLD_TITLES, "Mean")
    rows = [(title, *(area.estimate for area in found)) for title, found in areas.items()]
    rows += [(f"{PUBLISHED}: {title}", *values) for title, values in published.items()]
    note = f"Area under the ROC curve. Clinical factors: age, sex, body mass index. Published: {HONG}; {SAEED}."
    made = [Table(f"{name}_auc", "Area under the curve", columns, tuple(rows), note)]
    if len(areas) > 1:
        made.append(_comparator_differences(areas, name))
    return Section(name, title, tuple(text), tuple(made), (_roc_figure(study, comparators, name),))


def _comparator_differences(areas: Mapping[str, Sequence[Found]], name: str) -> Table:
    columns = ("Threshold", "Area", "The other", "Difference", "p")
    rows: list[tuple[Entry, ...]] = []
    for first, second in ((BOTH, ALONE), (BOTH, IMAGE), (IMAGE, ALONE)):
        if first not in areas or second not in areas:
            continue
        rows.append(heading(f"{first} minus {lowered(second)}", columns))
        for head, own, other in zip((*THRESHOLD_TITLES, "Mean"), areas[first], areas[second], strict=True):
            change = paired_difference(own, other)
            values = (float(own.values[0]), float(other.values[0]))
            rows.append((f"  {head}", *values, change.estimate, p_cell(change.p)))
    note = "On the same patients and resamples: paired. p is not adjusted for the number of comparisons."
    return Table(f"{name}_differences", "Added value of each", columns, tuple(rows), note)


def _roc_figure(study: Study, comparators: Sequence[Comparator], name: str) -> Figure:
    panels = []
    for n, head in enumerate(THRESHOLD_TITLES):
        curves = []
        for comparator in comparators:
            of = comparator.predictions
            truth = study.data.above(THRESHOLDS[n])[of.rows]
            curves.append(
                roc_curve(comparator.title, study.resamples, of.rows, of.folds, truth, comparator.scores[:, n])
            )
        panels.append((head, tuple(curves)))
    note = "Averaged over the folds. Bands: 95 % of resamples of the patients, at each false positive rate."
    draw = partial(roc_bands, panels=panels)
    return Figure(f"{name}_roc", "ROC curves", draw, note, (7, 3.1))


STRATA = (("1–99", 0, 100), ("100–399", 100, 400), ("≥ 400", 400, np.inf))


def _strata_section(study: Study, comparators: Sequence[Comparator]) -> Section:
    columns = (
        "Without calcium against",
        *(comparator.title for comparator in comparators),
        "Patients without",
        "Patients with",
    )
    rows, series = [], {comparator.title: [] for comparator in comparators}
    score = study.data.agatston
    for title, low, high in STRATA:
        wanted = (score == 0) | ((score > 0) & (score >= low) & (score < high))
        cells: list[Entry] = []
        for comparator in comparators:
            own = wanted[comparator.predictions.rows]
            chosen = comparator.predictions.rows[own]
            folds = comparator.predictions.folds[own]
            found = study.resamples.area_in_folds(chosen, folds, score[chosen] > 0, comparator.scores[own, 0])
            cells.append(found.estimate)
            series[comparator.title].append(found.estimate)
        with_calcium = int((score[chosen] > 0).sum())
        rows.append((title, *cells, len(chosen) - with_calcium, with_calcium))
    note = "Area under the curve of the output for any calcium, between those without calcium and those of one stratum."
    table = Table("strata_auc", "By amount of true calcium", columns, tuple(rows), note)
    panel = Panel("Against no calcium", tuple(title for title, *_ in STRATA), series)
    figure = areas_figure("strata_figure", "By amount of true calcium", [panel], (5, 3.2))
    text = (
        "The reference is the true calcium, which no reader knows. Scores of 1 to 99 show least on a radiograph; in "
        "an unselected cohort, these are most of the patients above 0.",
    )
    return Section("strata", "Comparison with the true calcium", text, (table,), (figure,))


@dataclass(frozen=True)
class _Shown:
    """A table of configurations. titles: of each. against: with which one is compared, where that is not the base;
    `less` is what to call it.
    """

    name: str
    title: str
    head: str
    titles: Mapping[Configuration, str]
    note: str = ""
    against: Mapping[Configuration, Configuration] = field(default_factory=dict)
    less: str = "base"


def _side_table(
    study: Study,
    trained: Mapping[Configuration, tuple[int, int]],
    shown: _Shown,
    extra: Mapping[str, Mapping[Configuration, Entry]] | None = None,
    groups: Mapping[Configuration, str] | None = None,
) -> tuple[Table, dict[Configuration, list[Found]]]:
    """Cells below each other, on the patients that all that are trained share; and their areas. groups: headings."""
    configs = [config for config in shown.titles if config in study.predictions]
    areas: dict[Configuration, list[Found]] = {}
    if configs:
        rows = study.shared([BASE, *configs] if BASE in study.predictions else configs)
        areas = {
            config: study.areas(study.predictions[config], study.predictions[config].image, rows) for config in configs
        }
        if BASE in study.predictions:
            areas.setdefault(BASE, study.areas(study.predictions[BASE], study.predictions[BASE].image, rows))
    columns = (shown.head, *THRESHOLD_TITLES, "Mean", f"Mean minus {shown.less}", "p", *(extra or {}))
    lines, group = [], None
    for config, title in shown.titles.items():
        if groups and groups[config] != group:
            group = groups[config]
            lines.append(heading(group, columns))
        title = f"  {title}" if groups else title
        more = [column.get(config) for column in (extra or {}).values()]
        if config not in study.predictions:
            done, planned = trained.get(config, (0, 0))
            said = f"{done} of {planned} folds" if done else NOT_RUN
            lines.append((title, said, *[None] * 5, *more))
            continue
        found = areas[config]
        other = shown.against.get(config, BASE)
        change: list[Entry] = [None, None]
        if other in areas and other != config:
            changed = paired_difference(found[-1], areas[other][-1])
            change = [changed.estimate, p_cell(changed.p)]
        lines.append((title, *(one.estimate for one in found), *change, *more))
    return Table(shown.name, shown.title, columns, tuple(lines), f"{_PAIRED} {shown.note}".strip()), areas


_PAIRED = (
    "Areas under the curve of the image alone, by threshold, on the patients that all trained rows share. Base: "
    "light network, PA, no super-resolution, no enhancement, labels from the true mass. Differences are paired."
)


def _folds_text(
    study: Study, configs: Sequence[Configuration], trained: Mapping[Configuration, tuple[int, int]]
) -> str:
    own = [config for config in configs if config in study.predictions]
    if not own:
        return "None of this has been trained yet. Run the same command again to go on."
    folds = min(trained[config][0] for config in own)
    rest = len(configs) - len(own)
    text = f"{folds} of {len(np.unique(study.folds))} folds were trained of each."
    return text + (f" {rest} of {len(configs)} training methods were not run, or not completed." if rest else "")


def _fusion_section(study: Study, trained: Mapping[Configuration, tuple[int, int]]) -> Section:
    titles = {config: " and ".join(config.views) for config in TABLES["fusion"]}
    table, _ = _side_table(study, trained, _Shown("fusion_auc", "One view or two", "Views", titles))
    text = (_folds_text(study, list(titles), trained), "Two views are fused by concatenating their features.")
    return Section("fusion", "Fusion of two views", text, (table,))


def _capacity_section(study: Study, trained: Mapping[Configuration, tuple[int, int]]) -> Section:
    configs = {
        config: BACKBONES[config.backbone] + (", located" if config.located else "") for config in TABLES["capacity"]
    }
    own = {config: study.predictions[config] for config in configs if config in study.predictions}
    rows = [
        (
            configs[config],
            found.weights,
            round(float(np.median(found.seconds)) / 60, 2),
            int(np.median(found.steps)),
        )
        for config, found in own.items()
    ]
    columns = ("Backbone", "Weights", "Minutes a training", "Steps")
    cost = Table("capacity_cost", "Training time", columns, tuple(rows), "Median, on one processor core.")
    note = (
        "Located: trained on the location of the calcium as well, as only the light network can be; the others are "
        "to be "
    )
    note += "compared with the light network that was not. Published: a light network beat large pretrained ones "
    note += f"({SAEED}); here none is pretrained."
    light = next(config for config in configs if config != BASE)
    against = {config: config if config == BASE else light for config in configs}
    shown = _Shown("capacity_auc", "Backbones", "Backbone", configs, note, against, "light")
    table, areas = _side_table(study, trained, shown)
    figures = _areas_figure(
        "capacity_figure",
        "Backbones",
        {title: areas.get(config) for config, title in configs.items()},
    )
    return Section("capacity", "Capacity", (_folds_text(study, list(configs), trained),), (table, cost), figures)


def _counterfactual_section(study: Study, trained: Mapping[Configuration, tuple[int, int]]) -> Section:
    kinds = {
        (True, True): "both",
        (True, False): "counterfactual pairs",
        (False, True): "place",
        (False, False): "neither",
    }
    titles = {config: kinds[config.counterfactual, config.located] for config in TABLES["counterfactual_pairs"]}
    table, _ = _side_table(
        study, trained, _Shown("twins_auc", "With counterfactual pairs and location in training", "With", titles)
    )
    text = (
        _folds_text(study, list(titles), trained),
        "Projection is linear: subtracting or adding the contribution of calcium gives the radiograph that the same "
        "patient would have without it, or with more. Training uses such counterfactual pairs, which differ in "
        "calcium alone, beside the patients, and learns the location of the calcium. The papers did neither; both "
        "take a CT whose calcium is known.",
    )
    return Section(
        "counterfactual_pairs", "Counterfactual pairs, and the location of calcium, in training", text, (table,)
    )


def _curriculum_section(study: Study, trained: Mapping[Configuration, tuple[int, int]]) -> Section:
    configs = TABLES["curriculum"]
    titles = {config: "curriculum" if config.curriculum else "all cases from the start" for config in configs}
    groups = {config: LABELS[config.labels] for config in configs}
    spreads = {
        config: sd_over_folds(_fold_means(study, study.predictions[config]))
        for config in configs
        if config in study.predictions
    }
    note = (
        "SD over folds: of the mean area of each fold; it includes the random assignment of patients to folds, "
        "which is the same for all rows. All are evaluated against the true mass, whatever their labels in training, "
        "and trained without counterfactual pairs and location."
    )
    against = {config: replace(config, curriculum=False) for config in configs}
    shown = _Shown("curriculum_auc", "Curriculum, by label", "Training", titles, note, against, "without")
    table, _ = _side_table(study, trained, shown, {"SD over folds": spreads}, groups)
    text = (
        _folds_text(study, configs, trained),
        f"Published: a curriculum stabilises training on weak labels ({SAEED}).",
    )
    return Section("curriculum", "Curriculum and weak labels", text, (table,))


def _fold_means(study: Study, predictions: Predictions) -> list[float]:
    means = []
    for fold in np.unique(predictions.folds):
        found = study.areas(predictions, predictions.image, predictions.rows[predictions.folds == fold])
        means.append(float(found[-1].values[0]))
    return means


def _super_resolution_section(study: Study, trained: Mapping[Configuration, tuple[int, int]]) -> Section:
    configs = TABLES["super_resolution"]
    titles = {config: ENHANCEMENTS[config.enhancement] for config in configs}
    groups = {config: SUPER_RESOLUTIONS[config.super_resolution] for config in configs}
    shown = _Shown("sharpening_auc", "Every combination", "Enhancement", titles)
    table, areas = _side_table(study, trained, shown, None, groups)
    rows = [
        (
            title,
            *(
                areas[config][-1].estimate if config in areas else NOT_RUN
                for config in configs
                if config.super_resolution == super_resolution
            ),
        )
        for super_resolution, title in SUPER_RESOLUTIONS.items()
    ]
    note = f"Mean area under the curve over the thresholds. Published: both together gain significantly ({SAEED})."
    columns = ("Slices", *ENHANCEMENTS.values())
    matrix = Table("sharpening_matrix", "Super-resolution and contrast", columns, tuple(rows), note)
    return Section(
        "super_resolution", "Super-resolution × contrast", (_folds_text(study, configs, trained),), (matrix, table)
    )


def _areas_figure(name: str, title: str, areas: Mapping[str, Sequence[Found] | None]) -> tuple[Figure, ...]:
    series = {label: [one.estimate for one in found] for label, found in areas.items() if found}
    if len(series) < 2:
        return ()
    return (areas_figure(name, title, [Panel(title, (*THRESHOLD_TITLES, "Mean"), series)], (5, 3.2)),)


_SIDE = {
    "fusion": _fusion_section,
    "capacity": _capacity_section,
    "counterfactual_pairs": _counterfactual_section,
    "curriculum": _curriculum_section,
    "super_resolution": _super_resolution_section,
}
