"""The main tables of the study of radiomics: models, what is better than what, and what models learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...experiments.plots import areas_figure, roc_curve
from ...experiments.results import lowered
from ...report.curves import roc_bands
from ...report.figures import Panel
from ...report.parts import PUBLISHED, Figure, Section, Table, heading, p_cell
from ...statistics.bootstrap import Found, paired_difference
from ...statistics.proportions import mcnemar_p
from .configurations import (
    BASELINES,
    CLASSIFIERS,
    FEATURES,
    NETWORKS,
    RADIOMICS,
    Configuration,
    contrast_configurations,
    counterpart,
    label_configurations,
    model_configurations,
)
from .results import ACCURACY, AREA, CROSSED, HELD, MEASURES, SENSITIVITY, SPECIFICITY, Evaluated, Study

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

ABAID = "Abaid et al. 2025, arXiv 2510.25347"
ABAID_ACCURACY, ABAID_SENSITIVITY = 0.84, 0.95
PUBLISHED_ROW = (f"{PUBLISHED}: radiomics, best of several", ABAID_ACCURACY, ABAID_SENSITIVITY, None, None, None)

RULE = "130 HU in the heart (the pseudo-label)"
SIGNIFICANT = 0.05
PARTS = {HELD: "Held-out patients", CROSSED: "Cross-validated"}

Measured = Mapping[str, Found]


def title_of(config: Configuration) -> str:
    """Of a way to make models, in full."""
    parts = [FEATURES[config.features]]
    parts += [] if config.features in BASELINES else [CLASSIFIERS[config.classifier].lower()]
    parts += ["with contrast-enhanced scans"] if config.contrast else []
    return ", ".join([*parts, *(["from pseudo-labels"] if config.pseudo else [])])


def radiomics_configurations() -> list[Configuration]:
    """Of which the study's model is chosen."""
    return model_configurations(tuple(RADIOMICS))


def network_configurations() -> list[Configuration]:
    """Which radiomics are compared with."""
    return model_configurations(tuple(NETWORKS))


def models_section(study: Study) -> Section:
    """Every set of features with every classifier, held out and cross-validated, and ROC curves."""
    tables = [_models_table(study, part) for part in (HELD, CROSSED) if study.parts[part]]
    text = [
        "The task is to detect any coronary calcium of a patient. A model gives a probability; those that reach its "
        f"threshold are called positive. The threshold was chosen for a sensitivity of {100 * ABAID_SENSITIVITY:.0f} % "
        "on the training scans, each predicted by models that had not seen it. Settings of classifiers were chosen "
        "inside each fold."
    ]
    best = study.best(radiomics_configurations())
    if best is None:
        return Section("models", "Models", ("No model was made. The messages of the run say why.",))
    text.append(
        f"By its cross-validated area under the curve, “{title_of(best)}” was chosen among the models on radiomics; "
        "the "
        "held-out patients had no part in it."
    )
    figures = [_roc_figure(study), _areas_figure(study)]
    return Section("models", "Models", tuple(text), tuple(tables), tuple(f for f in figures if f is not None))


def _models_table(study: Study, part: str) -> Table:
    columns = ("Model", *MEASURES, "Accuracy at 0.5")
    rows: list[tuple[Entry, ...]] = []
    evaluated = study.parts[part]
    for name in (*RADIOMICS, *NETWORKS):
        own = [
            Configuration(name, classifier)
            for classifier in CLASSIFIERS
            if Configuration(name, classifier) in evaluated
        ]
        if own:
            rows.append(heading(FEATURES[name], columns))
            rows += [(f"  {CLASSIFIERS[config.classifier]}", *_row(study, evaluated[config])) for config in own]
    rows.append(heading("For comparison", columns))
    rows.append((f"  {RULE}", *_row(study, study.rule(part))[:-1], None))
    rows += [
        (f"  {title}", *_row(study, evaluated[Configuration(name)]))
        for name, title in BASELINES.items()
        if Configuration(name) in evaluated
    ]
    rows.append(PUBLISHED_ROW)
    note = (
        f"Published: {ABAID}, 182 patients with a clinical CT; it is not stated whether both values are of one "
        "model, and of which threshold. Accuracy at 0.5: when every patient with a probability of one half or more is "
        "called positive."
    )
    if part == CROSSED:
        note += " Areas count pairs of patients of the same fold."
    return Table(f"models_{part}", f"Any coronary calcium: {PARTS[part].lower()}", columns, tuple(rows), note)


def _row(study: Study, evaluated: Evaluated) -> list[Entry]:
    found = study.measures(evaluated)
    true = study.scans.truth[evaluated.rows]
    half = study.resamples.proportion(
        evaluated.rows, (evaluated.probabilities >= 0.5) == true, np.ones(len(true), bool)
    )
    return [*(found[name].estimate for name in MEASURES), half.estimate]


def _comparators(study: Study, part: str) -> list[tuple[str, Evaluated]]:
    """For the curves: the best radiomics and networks, the rule, age and sex."""
    evaluated = study.parts[part]
    configs = [
        study.best(radiomics_configurations()),
        study.best(network_configurations()),
        Configuration("age-sex"),
    ]
    found = [(title_of(config), evaluated[config]) for config in configs if config in evaluated]
    found.insert(2, ("The candidates’ Agatston score", study.rule(part)))
    return found


def _roc_figure(study: Study) -> Figure | None:
    panels = []
    for part, title in PARTS.items():
        if not study.parts[part]:
            continue
        curves = [
            roc_curve(name, study.resamples, one.rows, one.folds, study.scans.truth[one.rows], one.probabilities)
            for name, one in _comparators(study, part)
        ]
        panels.append((f"{title}, n = {len(study.rows_of(part))}", tuple(curves)))
    if not panels:
        return None
    note = "Of several, those with the greatest cross-validated area. Bands: 95 % of resamples of the patients."
    return Figure("roc", "ROC curves", partial(_two_lines_of_legend, panels=panels), note, (6, 3.8))


def _two_lines_of_legend(drawing, panels) -> None:
    """As `roc_bands`, but its names are too long for one line."""
    roc_bands(drawing, panels)
    for legend in list(drawing.legends):
        handles, labels = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
        legend.remove()
        drawing.legend(handles, labels, loc="outside lower center", ncols=1)


def _areas_figure(study: Study) -> Figure | None:
    panels = []
    for part, title in PARTS.items():
        evaluated = study.parts[part]
        series = {}
        for name in (*RADIOMICS, *NETWORKS):
            configs = [Configuration(name, classifier) for classifier in CLASSIFIERS]
            found = [
                study.measures(evaluated[config])[AREA].estimate if config in evaluated else None for config in configs
            ]
            if any(one is not None for one in found):
                series[FEATURES[name]] = found
        if series:
            panels.append(Panel(title, tuple(_SHORT.values()), series))
    if not panels:
        return None
    return areas_figure("areas", "Features and classifiers", panels, (7, 3.6))


_SHORT = {"logistic": "Logistic", "forest": "Forest", "svm": "SVM", "boosting": "Boosting"}


def significance_section(study: Study) -> Section:
    """Radiomics against features of networks, and against the simple ways."""
    tables = tuple(_significance_table(study, part) for part in (HELD, CROSSED) if study.parts[part])
    text = (
        "On the same patients: accuracy by McNemar’s exact test, which uses only the patients whom one of the two "
        "classifies correctly and the other does not, and areas by a paired bootstrap over patients. “yes” is p < "
        "0.05 for accuracy, as "
        "in the paper, whichever side is better. p is not adjusted for the number of comparisons.",
        "The cross-validated comparison is based on more patients, but models of different folds share most of their "
        "training data, and the best models were chosen on these patients: those p are too small. The held-out "
        "comparison is free of this bias, but has fewer patients.",
    )
    return Section("significance", "Radiomics against features of networks", text, tables)


def _significance_table(study: Study, part: str) -> Table:
    columns = (
        "Radiomics against",
        "Accuracy",
        "The other’s",
        "p, McNemar",
        "p < 0.05",
        "AUC minus the other’s",
        "p, bootstrap",
    )
    evaluated = study.parts[part]
    rows: list[tuple[Entry, ...]] = []
    for name in NETWORKS:
        pairs = [(CLASSIFIERS[c], Configuration("both", c), Configuration(name, c)) for c in CLASSIFIERS]
        own = [(title, a, b) for title, a, b in pairs if a in evaluated and b in evaluated]
        if own:
            rows.append(heading(f"{FEATURES[name]}, by the same classifier", columns))
            rows += [(f"  {title}", *versus(study, evaluated[a], evaluated[b])) for title, a, b in own]
    best, network = study.best(radiomics_configurations()), study.best(network_configurations())
    if best in evaluated:
        rows.append(heading(f"The chosen model ({title_of(best)}) against", columns))
        if network in evaluated:
            rows.append((f"  {title_of(network)}", *versus(study, evaluated[best], evaluated[network])))
        rows.append((f"  {RULE}", *versus(study, evaluated[best], study.rule(part))))
        for name, title in BASELINES.items():
            if Configuration(name) in evaluated:
                rows.append((f"  {title}", *versus(study, evaluated[best], evaluated[Configuration(name)])))
    title = f"Comparison of models: {PARTS[part].lower()}"
    return Table(f"significance_{part}", title, columns, tuple(rows))


def versus(study: Study, own: Evaluated, other: Evaluated) -> list[Entry]:
    """Both accuracies, McNemar's p, whether it is significant, and the difference of areas with its p."""
    # Cross-validated scans come in the order of their folds, the rule's in that of the table.
    first, second = (evaluated.of(np.argsort(evaluated.rows)) for evaluated in (own, other))
    true = study.scans.truth[first.rows]
    right = [evaluated.called == true for evaluated in (first, second)]
    p = mcnemar_p(*right)
    change = paired_difference(*(study.area(evaluated, true) for evaluated in (first, second)))
    accuracies = [float(one.mean()) for one in right]
    return [*accuracies, p_cell(p), "yes" if p < SIGNIFICANT else "no", change.estimate, p_cell(change.p)]


def contrast_section(study: Study, scans: int) -> Section:
    """Contrast-enhanced scans added to what is learned from. scans: how many there are."""
    text = (
        f"{scans} contrast-enhanced scans were added to the training data; all models are evaluated on the scans "
        "without contrast agent. Where blood is enhanced, candidates begin above it instead of at 130 HU. Labels are "
        "true.",
    )
    table = _changed_table(study, contrast_configurations(), "contrast_models", "With contrast-enhanced scans added")
    return Section("contrast", "Contrast-enhanced scans in training", text, (table,))


def labels_section(study: Study) -> Section:
    """Labels without a reader, instead of the truth."""
    rows = np.flatnonzero(np.isfinite(study.scans.agatston))
    same = float((study.scans.pseudo[rows] == study.scans.truth[rows]).mean())
    text = (
        f"A pseudo-label is “non-zero” where candidates at 130 HU in the heart, except the smallest, have a score; "
        f"{100 * same:.0f} % of these labels agree with the truth. Models trained on them were evaluated against the "
        "truth like the others. From the candidates’ own features a model can learn the rule itself; from those of "
        "the heart it has to learn what is associated with it.",
    )
    table = _changed_table(study, label_configurations(), "label_models", "Learned from pseudo-labels")
    return Section("labels", "Pseudo-labels in training", text, (table,))


def _changed_table(study: Study, configs: Sequence[Configuration], name: str, title: str) -> Table:
    columns = ("Model", ACCURACY, SENSITIVITY, SPECIFICITY, AREA, "Accuracy, change", "AUC, change", "p of AUC")
    rows: list[tuple[Entry, ...]] = []
    for part, kind in ((part, features) for part in (HELD, CROSSED) for features in RADIOMICS):
        evaluated = study.parts[part]
        own = [
            config
            for config in configs
            if config.features == kind and config in evaluated and counterpart(config) in evaluated
        ]
        if own:
            rows.append(heading(f"{PARTS[part]}: {lowered(FEATURES[kind])}", columns))
        for config in own:
            found, before = (study.measures(evaluated[one]) for one in (config, counterpart(config)))
            change, areas = (paired_difference(found[key], before[key]) for key in (ACCURACY, AREA))
            shown = [found[key].estimate for key in MEASURES]
            rows.append(
                (f"  {CLASSIFIERS[config.classifier]}", *shown, change.estimate, areas.estimate, p_cell(areas.p))
            )
    note = "Changes are relative to the same model trained on the true labels of scans without contrast agent; paired."
    return Table(name, title, columns, tuple(rows), note)
