"""What stands behind the study's models of radiomics: whom they find, by which features, and what misleads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...experiments.configuration import ExperimentRun
from ...experiments.results import CATEGORIES as TITLES
from ...report import figures as study_figures
from ...report.parts import Figure, Section, Table, heading, p_cell
from ...statistics.bootstrap import Estimate, Found
from ...statistics.patient_folds import CATEGORIES, category_of
from ...statistics.proportions import difference_of_proportions
from .configurations import CLASSIFIERS, HELD_OUT, Configuration
from .results import ACCURACY, AREA, CROSSED, HELD, SENSITIVITY, SPECIFICITY, Evaluated, Study
from .study_runs import LISTED, REPEATS
from .tables import PARTS, RULE, network_configurations, radiomics_configurations, title_of

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

INSTALLABLE = Configuration("both", "logistic")
"""The model that `cac train radiomics` makes."""

IBSI = (
    "Names are those of mirp after heart or candidate: stat, of intensities; ih and ivh, of their histogram and volume "
    "histogram; cm, co-occurrence; rlm, run length; szm, size zone; ngt and ngl, neighbourhood (IBSI)."
)


def shown_models(study: Study, part: str) -> list[tuple[str, Evaluated]]:
    """Of a part: the chosen model, the installable one, the best of networks' features, and the rule."""
    configs = dict.fromkeys([study.best(radiomics_configurations()), INSTALLABLE, study.best(network_configurations())])
    found = [(title_of(config), study.parts[part][config]) for config in configs if config in study.parts[part]]
    return [*found, (RULE, study.rule(part))]


def found_section(study: Study) -> Section:
    """Whom models call, by how much calcium there is, and whether any can be seen."""
    columns = ("Called, of those with a score of", *TITLES)
    rows: list[tuple[Entry, ...]] = []
    for part in (HELD, CROSSED):
        models = shown_models(study, part) if study.parts[part] else []
        if models:
            rows.append(heading(PARTS[part], columns))
        for title, evaluated in models:
            category = category_of(study.scans.agatston[evaluated.rows])
            found = [
                study.resamples.proportion(evaluated.rows, evaluated.called, category == n) for n in range(len(TITLES))
            ]
            rows.append((f"  {title}", *(one.estimate for one in found)))
    note = f"True scores; categories begin above 0, at {CATEGORIES[1]:.0f} and at {CATEGORIES[2]:.0f}."
    tables = [Table("called_by_category", "By amount of calcium", columns, tuple(rows), note)]
    text = ["The first column is the false positive rate, the others are sensitivities."]
    if np.isfinite(study.scans.visible).all():
        hidden = study.scans.truth & (study.scans.visible == 0)
        text.append(
            f"{int(hidden.sum())} of {int(study.scans.truth.sum())} scans with coronary calcium show none that can be "
            "distinguished from noise in any slice. No reader would call them positive; [[visible]] gives the same "
            "with visible calcium as the reference."
        )
        tables.append(_visible_table(study))
    return Section("found", "By amount of calcium, and whether it is visible", tuple(text), tuple(tables))


def _visible_table(study: Study) -> Table:
    columns = (
        "Model",
        f"{ACCURACY}, visible",
        f"{SENSITIVITY}, visible",
        f"{SPECIFICITY}, visible",
        f"{AREA}, visible",
        "Called, of those hidden",
    )
    rows: list[tuple[Entry, ...]] = []
    visible = study.scans.visible == 1
    for part in (HELD, CROSSED):
        models = shown_models(study, part) if study.parts[part] else []
        if models:
            rows.append(heading(PARTS[part], columns))
        for title, evaluated in models:
            found = study.measures(evaluated, visible)
            hidden = (study.scans.truth & ~visible)[evaluated.rows]
            missed = (
                study.resamples.proportion(evaluated.rows, evaluated.called, hidden).estimate if hidden.any() else None
            )
            rows.append((f"  {title}", *(one.estimate for one in found.values()), missed))
    note = "Reference: whether coronary calcium stands out from the noise in any slice. Hidden: there, but in none."
    return Table("visible", "With visible calcium as the reference", columns, tuple(rows), note)


def importance_section(study: Study) -> Section | None:
    """Importance of features; None where no model on all radiomics was made."""
    best = study.best([Configuration("both", classifier) for classifier in CLASSIFIERS])
    kept = study.kept.get(ExperimentRun(best, HELD_OUT)) if best else None
    tables, figures = [], []
    text = [
        "The importance of a feature is the area under the curve that is lost when it is permuted among the held-out "
        "patients. Correlated features stand in for each other and then appear unimportant one by one; families are "
        "permuted as one.",
    ]
    if kept and kept["importance"]:
        for name, title in (("features", "Single features"), ("families", "Families of features")):
            rows = kept["importance"][name][:LISTED]
            tables.append(_importance_table(name, f"{title}: {title_of(best)}", rows, len(study.rows_of(HELD))))
            marks = [(row[0], _estimate(row, len(study.rows_of(HELD)))) for row in rows]
            size = (6.5, 0.8 + 0.23 * len(rows))
            draw = partial(study_figures.forest, rows=marks, x_title="Area under the curve lost", reference=0.0)
            note = f"{title_of(best)}. Bars: 95 % of resamples of the patients."
            figures.append(Figure(f"importance_{name}_figure", f"Importance of {title.lower()}", draw, note, size))
    weights = _weights_table(study)
    if weights is not None:
        tables.append(weights)
        text.append(
            "Weights are of the logistic regression on standardised features: the change of the log odds when a "
            "feature grows by one standard deviation and the others are constant. Correlated features share the "
            "weight in proportions that differ from fold to fold, as the standard deviation shows."
        )
    if not tables:
        return None
    return Section("importance", "Importance of features", tuple(text), tuple(tables), tuple(figures))


def _estimate(row: Sequence, n: int) -> Estimate:
    ends = [float("nan") if end is None else end for end in row[3:5]]
    return Estimate(row[1], *ends, n)


def _importance_table(name: str, title: str, rows: Sequence[Sequence], n: int) -> Table:
    columns = ("Features", "Area lost", "SD over shuffles")
    note = f"Mean of {REPEATS} shuffles, with the interval over patients; the {LISTED} greatest. {IBSI}"
    cells = tuple((row[0], _estimate(row, n), float(row[2])) for row in rows)
    return Table(f"importance_{name}", title, columns, cells, note)


def _weights_table(study: Study) -> Table | None:
    whole = study.kept.get(ExperimentRun(INSTALLABLE, HELD_OUT))
    own = [run for run in study.kept if run.configuration == INSTALLABLE and run.fold != HELD_OUT]
    if not whole or whole["weights"] is None:
        return None
    weights, spread = np.array(whole["weights"]), np.array([study.kept[run]["weights"] for run in own])
    titles = study.scans.titles["both"]
    rows = []
    for n in np.argsort(-np.abs(weights))[:LISTED]:
        if weights[n] == 0:
            break
        several = len(own) > 1
        same = float((np.sign(spread[:, n]) == np.sign(weights[n])).mean()) if several else None
        over = (float(spread[:, n].mean()), float(spread[:, n].std(ddof=1))) if several else (None, None)
        rows.append((titles[n], float(weights[n]), *over, same))
    columns = ("Feature", "Weight", "Mean over folds", "SD over folds", "Folds of the same sign")
    used = f"{int((weights != 0).sum())} of {len(weights)} features have a weight; the {LISTED} greatest are listed."
    return Table("weights", f"Weights: {title_of(INSTALLABLE)}", columns, tuple(rows), used)


def controls_section(study: Study) -> Section | None:
    """Calcium that is not coronary; None where nobody knows of any."""
    known = np.isfinite(study.scans.other).all()
    models = shown_models(study, HELD) if study.parts[HELD] else []
    given = [(title, evaluated) for title, evaluated in models if evaluated.noncoronary_controls is not None]
    if not known and not given:
        return None
    text = [
        "A model that is specific to coronary calcium calls no more patients positive whose only calcium lies in the "
        "aorta or the valves than patients who have none.",
    ]
    columns = ("Called coronary", "No calcium at all", "No coronary, but other calcium", "Difference", "p")
    tables = []
    if known:
        rows: list[tuple[Entry, ...]] = []
        for part in (HELD, CROSSED):
            shown = shown_models(study, part) if study.parts[part] else []
            if shown:
                rows.append(heading(PARTS[part], columns))
            for title, evaluated in shown:
                none, other = (_called(study, evaluated, kind) for kind in (0, 1))
                rows.append((f"  {title}", *_side_by_side(none, other)))
        note = "Patients of the cohort itself who have no coronary calcium."
        tables.append(Table("others_within", "Other calcium, within the cohort", columns, tuple(rows), note))
    if given:
        asked = [*((title, evaluated, evaluated) for title, evaluated in given), (RULE, study.rule(HELD), None)]
        rows = [
            (title, *_side_by_side(without_any(study, own), called_controls(study, by))) for title, own, by in asked
        ]
        none = "calcium at all" if known else "coronary calcium"
        note = (
            f"{len(study.noncoronary_controls.names)} scans with other calcium only, and the held-out patients "
            f"without {none}."
        )
        columns = ("Called coronary", f"Held out, no {none}", "Calcium in aorta or valves only", "Difference", "p")
        tables.append(Table("others", "A cohort with other calcium only", columns, tuple(rows), note))
        text.append("Those of [[others]] were part of no training and of no choice.")
    return Section("others", "Calcium that is not coronary", tuple(text), tuple(tables))


def _side_by_side(none: Found, other: Found) -> list[Entry]:
    change = difference_of_proportions(other, none)
    return [none.estimate, other.estimate, change.estimate, p_cell(change.p)]


def _called(study: Study, evaluated: Evaluated, kind: int) -> Found:
    """Share called of those without coronary calcium. kind: 1 with other calcium, 0 without."""
    wanted = ~study.scans.truth & (study.scans.other == kind)
    return study.resamples.proportion(evaluated.rows, evaluated.called, wanted[evaluated.rows])


def without_any(study: Study, evaluated: Evaluated) -> Found:
    """Share called of those without any calcium; without coronary calcium where nobody knows of other."""
    if np.isfinite(study.scans.other).all():
        return _called(study, evaluated, 0)
    return study.resamples.proportion(evaluated.rows, evaluated.called, ~study.scans.truth[evaluated.rows])


def called_controls(study: Study, evaluated: Evaluated | None) -> Found:
    """Share called of the cohort with other calcium only; by the rule when None."""
    called = study.noncoronary_controls.pseudo if evaluated is None else evaluated.noncoronary_controls[1]
    return study.other_resamples.proportion(np.arange(len(called)), called, np.ones(len(called), bool))
