"""What the study of radiomics set out to show, and what it found: one row per goal, met or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...experiments.results import lowered, met
from ...report.parts import Section, Table, p_cell
from ...statistics.bootstrap import Estimate, paired_difference
from ...statistics.proportions import difference_of_proportions, mcnemar_p
from .checks import INSTALLABLE, called_controls, without_any
from .configurations import Configuration
from .results import ACCURACY, HELD, SENSITIVITY, Evaluated, Study
from .tables import (
    ABAID_ACCURACY,
    ABAID_SENSITIVITY,
    RULE,
    SIGNIFICANT,
    network_configurations,
    radiomics_configurations,
    title_of,
)

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

MOST_MORE = 0.10
"""Of those with other calcium only, as a share called coronary above that of those without any."""


def goals_section(study: Study) -> Section | None:
    """Judged by the held-out patients; None while no model of theirs is there."""
    held, best = study.parts[HELD], study.best(radiomics_configurations())
    if best not in held:
        return None
    rows = _accuracy(study, held[best], "The chosen model")
    if best != INSTALLABLE and INSTALLABLE in held:
        rows += _accuracy(study, held[INSTALLABLE], "The model to install (logistic regression)")
    # Those of the paper where they are given; else this project's stand in for them.
    own = [config for config in network_configurations() if config.features == "own"]
    network = study.best([config for config in network_configurations() if config not in own]) or study.best(own)
    if network in held:
        rows.append(_accuracy_above(study, held[best], held[network], title_of(network)))
    rows += [
        _area_above(study, held[best], study.rule(HELD), RULE),
        *(
            _area_above(study, held[best], held[config], lowered(title_of(config)))
            for config in (Configuration("age-sex"),)
            if config in held
        ),
    ]
    if held[best].noncoronary_controls is not None:
        change = difference_of_proportions(called_controls(study, held[best]), without_any(study, held[best]))
        title = "Called coronary, those with calcium in aorta or valves only, minus those without any: at most "
        found = change.estimate
        rows.append(_row(f"{title}{MOST_MORE:.2f}", found, found.value <= MOST_MORE, change.p))
    missed = [str(row[0]) for row in rows if row[-1] == "no"]
    count = sum(row[-1] == "yes" for row in rows)
    text = (
        f"{count} of {len(rows)} goals were met." + (f" Missed: {'; '.join(missed)}." if missed else ""),
        f"The chosen model is “{title_of(best)}”. It was evaluated once, on the {len(study.rows_of(HELD))} held-out "
        "scans.",
    )
    note = (
        "A numeric goal is met when the value itself reaches it, whatever its interval; a goal that compares is "
        "met when p is below 0.05 and the difference has the required sign."
    )
    table = Table("goals", "Goals and results", ("Goal", "Found", "p", "Met"), tuple(rows), note)
    return Section("goals", "Goals set before the study", text, (table,))


def _accuracy(study: Study, evaluated: Evaluated, model: str) -> list[tuple[Entry, ...]]:
    found = study.measures(evaluated)
    wanted = ((ACCURACY, ABAID_ACCURACY), (SENSITIVITY, ABAID_SENSITIVITY))
    return [
        _row(f"{model}: {name.lower()} at least {least:.2f}", found[name].estimate, found[name].estimate.value >= least)
        for name, least in wanted
    ]


def _accuracy_above(study: Study, own: Evaluated, other: Evaluated, name: str) -> tuple[Entry, ...]:
    change = paired_difference(*(study.measures(evaluated)[ACCURACY] for evaluated in (own, other)))
    first, second = ((one.called == study.scans.truth[one.rows])[one.rows.argsort()] for one in (own, other))
    p = mcnemar_p(first, second)
    title = f"As in the paper, accuracy above that of “{name}”, p < 0.05 by McNemar’s test"
    return _row(title, change.estimate, change.estimate.value > 0 and p < SIGNIFICANT, p)


def _area_above(study: Study, own: Evaluated, other: Evaluated, name: str) -> tuple[Entry, ...]:
    change = paired_difference(
        *(study.area(evaluated, study.scans.truth[evaluated.rows]) for evaluated in (own, other))
    )
    title = f"Area under the curve above that of {name}: difference above zero"
    return _row(title, change.estimate, change.estimate.low > 0, change.p)


def _row(title: str, found: Estimate, reached: bool, p: float | None = None) -> tuple[Entry, ...]:
    shown = None if p is None or math.isnan(p) else p_cell(p)
    return (title, found, shown, met(found, reached))
