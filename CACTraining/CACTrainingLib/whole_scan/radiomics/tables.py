"""The main tables of the study of radiomics: models, what is better than what, and what models learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...report import figures as study_figures
from ...report.curves import Curve, roc_bands
from ...report.parts import PUBLISHED, Figure, Section, Table, heading, p_cell
from ...statistics.resamples import Found
from ...statistics.roc import curve_within
from .plan import (
    BASELINES,
    CLASSIFIERS,
    FEATURES,
    NETWORKS,
    RADIOMICS,
    Cell,
    contrast_cells,
    label_cells,
    model_cells,
    twin,
)
from .results import ACCURACY, AREA, CROSSED, HELD, MEASURES, SENSITIVITY, SPECIFICITY, Judged, Study, less, mcnemar_p

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

ABAID = "Abaid et al. 2025, arXiv 2510.25347"
ABAID_ACCURACY, ABAID_SENSITIVITY = 0.84, 0.95
PUBLISHED_ROW = (f"{PUBLISHED}: radiomics, best of several", ABAID_ACCURACY, ABAID_SENSITIVITY, None, None, None)

RULE = "130 HU in the heart (the pseudo-label)"
SIGNIFICANT = 0.05
BAND_RESAMPLES = 400
"""Of the patients, for a curve's band; the bands' ends are not read off to the third figure."""

PARTS = {HELD: "Held-out patients", CROSSED: "Cross-validated"}

Measured = Mapping[str, Found]


def title_of(cell: Cell) -> str:
    """Of a way to make models, in full."""
    parts = [FEATURES[cell.features]]
    parts += [] if cell.features in BASELINES else [CLASSIFIERS[cell.classifier].lower()]
    parts += ["with contrast-enhanced scans"] if cell.contrast else []
    return ", ".join([*parts, *(["from pseudo-labels"] if cell.pseudo else [])])


def radiomics_cells() -> list[Cell]:
    """Of which the study's model is chosen."""
    return model_cells(tuple(RADIOMICS))


def network_cells() -> list[Cell]:
    """Which radiomics are compared with."""
    return model_cells(tuple(NETWORKS))


def models_section(study: Study) -> Section:
    """Every set of features with every classifier, held out and cross-validated, and ROC curves."""
    tables = [_models_table(study, part) for part in (HELD, CROSSED) if study.parts[part]]
    text = [
        "Does a patient have any coronary calcium? A model gives a chance; it calls those that reach its limit, which "
        f"was chosen to find {100 * ABAID_SENSITIVITY:.0f} % of those with calcium among the scans it learned from, "
        "each judged by models that had not seen it. Settings of classifiers were chosen inside each fold."
    ]
    best = study.best(radiomics_cells())
    if best is None:
        return Section("models", "Models", ("No model was made. The messages of the run say why.",))
    text.append(
        f"By its cross-validated area under the curve, “{title_of(best)}” was chosen of the models on radiomics; the "
        "held-out patients had no part in it."
    )
    figures = [_roc_figure(study), _areas_figure(study)]
    return Section("models", "Models", tuple(text), tuple(tables), tuple(f for f in figures if f is not None))


def _models_table(study: Study, part: str) -> Table:
    columns = ("Model", *MEASURES, "Accuracy at 0.5")
    rows: list[tuple[Entry, ...]] = []
    judged = study.parts[part]
    for name in (*RADIOMICS, *NETWORKS):
        own = [Cell(name, classifier) for classifier in CLASSIFIERS if Cell(name, classifier) in judged]
        if own:
            rows.append(heading(FEATURES[name], columns))
            rows += [(f"  {CLASSIFIERS[cell.classifier]}", *_row(study, judged[cell])) for cell in own]
    rows.append(heading("To compare with", columns))
    rows.append((f"  {RULE}", *_row(study, study.rule(part))[:-1], None))
    rows += [
        (f"  {title}", *_row(study, judged[Cell(name)])) for name, title in BASELINES.items() if Cell(name) in judged
    ]
    rows.append(PUBLISHED_ROW)
    note = (
        f"Published: {ABAID}, 182 patients with a clinical CT; whether both figures are of one model, and of which "
        "limit, could not be seen. Accuracy at 0.5: when everyone with a chance of one half or more is called."
    )
    if part == CROSSED:
        note += " Areas count pairs of patients of the same fold."
    return Table(f"models_{part}", f"Any coronary calcium: {PARTS[part].lower()}", columns, tuple(rows), note)


def _row(study: Study, judged: Judged) -> list[Entry]:
    found = study.measures(judged)
    true = study.scans.truth[judged.rows]
    half = study.resamples.share(judged.rows, (judged.chances >= 0.5) == true, np.ones(len(true), bool))
    return [*(found[name].estimate for name in MEASURES), half.estimate]


def _rivals(study: Study, part: str) -> list[tuple[str, Judged]]:
    """For the curves: the best radiomics and networks, the rule, age and sex."""
    judged = study.parts[part]
    cells = [study.best(radiomics_cells()), study.best(network_cells()), Cell("age-sex")]
    found = [(title_of(cell), judged[cell]) for cell in cells if cell in judged]
    found.insert(2, ("The candidates’ Agatston score", study.rule(part)))
    return found


def _roc_figure(study: Study) -> Figure | None:
    panels = []
    for part, title in PARTS.items():
        if not study.parts[part]:
            continue
        curves = []
        for name, judged in _rivals(study, part):
            true = study.scans.truth[judged.rows]
            weights = study.resamples.weights[: BAND_RESAMPLES + 1][:, study.resamples.of_scan[judged.rows]]
            drawn = curve_within(weights, judged.folds, true, judged.chances)
            band = np.nanpercentile(drawn[1:], (2.5, 97.5), axis=0) if np.isfinite(drawn[1:]).any() else None
            curves.append(Curve(name, drawn[0], band))
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
        judged = study.parts[part]
        series = {}
        for name in (*RADIOMICS, *NETWORKS):
            cells = [Cell(name, classifier) for classifier in CLASSIFIERS]
            found = [study.measures(judged[cell])[AREA].estimate if cell in judged else None for cell in cells]
            if any(one is not None for one in found):
                series[FEATURES[name]] = found
        if series:
            panels.append(study_figures.Panel(title, tuple(_SHORT.values()), series))
    if not panels:
        return None
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="Area under the curve", reference=0.5)
    return Figure("areas", "Features and classifiers", draw, "The line is chance.", (7, 3.6))


_SHORT = {"logistic": "Logistic", "forest": "Forest", "svm": "SVM", "boosting": "Boosting"}


def significance_section(study: Study) -> Section:
    """Radiomics against features of networks, and against the simple ways."""
    tables = tuple(_significance_table(study, part) for part in (HELD, CROSSED) if study.parts[part])
    text = (
        "On the same patients: accuracy by McNemar’s exact test, which looks only at those whom one of the two gets "
        "right and the other wrong, and areas by a paired bootstrap over patients. “yes” is p < 0.05 for accuracy, as "
        "in the paper, whichever side is better. p is not adjusted for the number of comparisons.",
        "Cross-validated, more patients stand behind a comparison, but models of different folds share most of what "
        "they learned from, and the best models were chosen by these patients: those p are too small. Held out, there "
        "is no such doubt, and fewer patients.",
    )
    return Section("significance", "Radiomics against features of networks", text, tables)


def _significance_table(study: Study, part: str) -> Table:
    columns = (
        "Radiomics against",
        "Accuracy",
        "The other’s",
        "p, McNemar",
        "p < 0.05",
        "AUC less the other’s",
        "p, bootstrap",
    )
    judged = study.parts[part]
    rows: list[tuple[Entry, ...]] = []
    for name in NETWORKS:
        pairs = [(CLASSIFIERS[c], Cell("both", c), Cell(name, c)) for c in CLASSIFIERS]
        own = [(title, a, b) for title, a, b in pairs if a in judged and b in judged]
        if own:
            rows.append(heading(f"{FEATURES[name]}, by the same classifier", columns))
            rows += [(f"  {title}", *versus(study, judged[a], judged[b])) for title, a, b in own]
    best, network = study.best(radiomics_cells()), study.best(network_cells())
    if best in judged:
        rows.append(heading(f"The chosen model ({title_of(best)}) against", columns))
        if network in judged:
            rows.append((f"  {title_of(network)}", *versus(study, judged[best], judged[network])))
        rows.append((f"  {RULE}", *versus(study, judged[best], study.rule(part))))
        for name, title in BASELINES.items():
            if Cell(name) in judged:
                rows.append((f"  {title}", *versus(study, judged[best], judged[Cell(name)])))
    title = f"What is better: {PARTS[part].lower()}"
    return Table(f"significance_{part}", title, columns, tuple(rows))


def versus(study: Study, own: Judged, other: Judged) -> list[Entry]:
    """Both accuracies, McNemar's p, whether it is significant, and the difference of areas with its p."""
    # Cross-validated scans come in the order of their folds, the rule's in that of the table.
    first, second = (judged.of(np.argsort(judged.rows)) for judged in (own, other))
    true = study.scans.truth[first.rows]
    right = [judged.called == true for judged in (first, second)]
    p = mcnemar_p(*right)
    change = less(*(study.area(judged, true) for judged in (first, second)))
    accuracies = [float(one.mean()) for one in right]
    return [*accuracies, p_cell(p), "yes" if p < SIGNIFICANT else "no", change.estimate, p_cell(change.p)]


def contrast_section(study: Study, scans: int) -> Section:
    """Contrast-enhanced scans added to what is learned from. scans: how many there are."""
    text = (
        f"{scans} contrast-enhanced scans were added to what models learn from; all are judged on the scans without "
        "contrast agent. Where blood is enhanced, candidates begin above it instead of at 130 HU. Labels are true.",
    )
    table = _changed_table(study, contrast_cells(), "contrast_models", "With contrast-enhanced scans added")
    return Section("contrast", "Contrast-enhanced scans in training", text, (table,))


def labels_section(study: Study) -> Section:
    """Labels without a reader, instead of the truth."""
    rows = np.flatnonzero(np.isfinite(study.scans.agatston))
    same = float((study.scans.pseudo[rows] == study.scans.truth[rows]).mean())
    text = (
        f"A pseudo-label says “non-zero” where candidates at 130 HU in the heart, but for the smallest, have a score; "
        f"{100 * same:.0f} % of these labels agree with the truth. Models that learned from them were judged by the "
        "truth like the others. From the candidates’ own features a model can learn the rule itself, from those of the "
        "heart it has to find what goes with it.",
    )
    table = _changed_table(study, label_cells(), "label_models", "Learned from pseudo-labels")
    return Section("labels", "Pseudo-labels in training", text, (table,))


def _changed_table(study: Study, cells: Sequence[Cell], name: str, title: str) -> Table:
    columns = ("Model", ACCURACY, SENSITIVITY, SPECIFICITY, AREA, "Accuracy, change", "AUC, change", "p of AUC")
    rows: list[tuple[Entry, ...]] = []
    for part, kind in ((part, features) for part in (HELD, CROSSED) for features in RADIOMICS):
        judged = study.parts[part]
        own = [cell for cell in cells if cell.features == kind and cell in judged and twin(cell) in judged]
        if own:
            rows.append(heading(f"{PARTS[part]}: {FEATURES[kind][0].lower()}{FEATURES[kind][1:]}", columns))
        for cell in own:
            found, before = (study.measures(judged[one]) for one in (cell, twin(cell)))
            change, areas = (less(found[key], before[key]) for key in (ACCURACY, AREA))
            shown = [found[key].estimate for key in MEASURES]
            rows.append((f"  {CLASSIFIERS[cell.classifier]}", *shown, change.estimate, areas.estimate, p_cell(areas.p)))
    note = "Changes: against the same model that learned from the truth of scans without contrast agent; paired."
    return Table(name, title, columns, tuple(rows), note)
