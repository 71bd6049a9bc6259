"""What the study of radiomics set out to show, and what it found: one row per goal, met or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...report.parts import Section, Table, p_cell
from ...statistics.measures import Estimate
from .checks import INSTALLABLE, called_others, without_any
from .plan import Cell
from .results import ACCURACY, HELD, SENSITIVITY, Judged, Study, less, less_share, mcnemar_p
from .tables import ABAID_ACCURACY, ABAID_SENSITIVITY, RULE, SIGNIFICANT, network_cells, radiomics_cells, title_of

if TYPE_CHECKING:
    from ...report.parts import Cell as Entry

MOST_MORE = 0.10
"""Of those with other calcium only, as a share called coronary above that of those without any."""


def goals_section(study: Study) -> Section | None:
    """Judged by the held-out patients; None while no model of theirs is there."""
    held, best = study.parts[HELD], study.best(radiomics_cells())
    if best not in held:
        return None
    rows = _accuracy(study, held[best], "The chosen model")
    if best != INSTALLABLE and INSTALLABLE in held:
        rows += _accuracy(study, held[INSTALLABLE], "The model to install (logistic regression)")
    # Those of the paper where they are given; else this project's stand in for them.
    own = [cell for cell in network_cells() if cell.features == "own"]
    network = study.best([cell for cell in network_cells() if cell not in own]) or study.best(own)
    if network in held:
        rows.append(_accuracy_above(study, held[best], held[network], title_of(network)))
    rows += [
        _area_above(study, held[best], study.rule(HELD), RULE),
        *(
            _area_above(study, held[best], held[cell], title_of(cell)[0].lower() + title_of(cell)[1:])
            for cell in (Cell("age-sex"),)
            if cell in held
        ),
    ]
    if held[best].others is not None:
        change = less_share(called_others(study, held[best]), without_any(study, held[best]))
        title = "Called coronary, those with calcium in aorta or valves only, less those without any: at most "
        found = change.estimate
        rows.append(_row(f"{title}{MOST_MORE:.2f}", found, found.value <= MOST_MORE, change.p))
    missed = [str(row[0]) for row in rows if row[-1] == "no"]
    met = sum(row[-1] == "yes" for row in rows)
    text = (
        f"{met} of {len(rows)} goals were met." + (f" Missed: {'; '.join(missed)}." if missed else ""),
        f"The chosen model is “{title_of(best)}”. Judged by the {len(study.rows_of(HELD))} held-out scans, once.",
    )
    note = (
        "A goal that is a number is met when the value itself reaches it, whatever its interval; one that compares, "
        "when p is below 0.05 and the difference lies on the right side."
    )
    table = Table("goals", "Goals and what was found", ("Goal", "Found", "p", "Met"), tuple(rows), note)
    return Section("goals", "Goals set before the study", text, (table,))


def _accuracy(study: Study, judged: Judged, model: str) -> list[tuple[Entry, ...]]:
    found = study.measures(judged)
    wanted = ((ACCURACY, ABAID_ACCURACY), (SENSITIVITY, ABAID_SENSITIVITY))
    return [
        _row(f"{model}: {name.lower()} at least {least:.2f}", found[name].estimate, found[name].estimate.value >= least)
        for name, least in wanted
    ]


def _accuracy_above(study: Study, own: Judged, other: Judged, name: str) -> tuple[Entry, ...]:
    change = less(*(study.measures(judged)[ACCURACY] for judged in (own, other)))
    first, second = ((one.called == study.scans.truth[one.rows])[one.rows.argsort()] for one in (own, other))
    p = mcnemar_p(first, second)
    title = f"As in the paper, accuracy above that of “{name}”, p < 0.05 by McNemar’s test"
    return _row(title, change.estimate, change.estimate.value > 0 and p < SIGNIFICANT, p)


def _area_above(study: Study, own: Judged, other: Judged, name: str) -> tuple[Entry, ...]:
    change = less(*(study.area(judged, study.scans.truth[judged.rows]) for judged in (own, other)))
    title = f"Area under the curve above that of {name}: difference above zero"
    return _row(title, change.estimate, change.estimate.low > 0, change.p)


def _row(title: str, found: Estimate, met: bool, p: float | None = None) -> tuple[Entry, ...]:
    shown = None if p is None or math.isnan(p) else p_cell(p)
    return (title, found, shown, "not defined" if math.isnan(found.value) else "yes" if met else "no")
