"""The whole-scan estimates of the scan under review, and whether they agree with its scores as they are now."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import table_widgets, widgets

if TYPE_CHECKING:
    from ..review.scene import SceneReview
    from ..whole_scan.estimates import Agreement, WholeScanEstimate


def showEstimates(ui, review: SceneReview | None) -> None:
    """A table of the estimates beside the scores as they are now, and beneath it how far they can be trusted; both
    hidden where there are none. review: None where there is no result."""
    estimates = () if review is None else review.estimates
    ui.wholeScanTable.setVisible(bool(estimates))
    if not estimates:
        widgets.say(ui.wholeScanLabel, "")
        return
    from ..whole_scan.estimates import TITLES, agreements

    results, by_artery = review.results(), any(estimate.agatston for estimate in estimates)
    columns = [
        [
            *(TITLES[estimate.network], _answer(estimate)),
            *(_agrees(found) for found in agreements(estimate, results).values()),
            *_ofArteries(estimate, shown=by_artery),
        ]
        for estimate in estimates
    ]
    # A column for each estimate: rows of so many cells would be wider than the panel.
    headings, *rows = zip(_titles(list(results), by_artery), *columns, strict=True)
    table_widgets.fillTable(ui.wholeScanTable, headings, rows)
    for column, estimate in enumerate(estimates, 1):
        ui.wholeScanTable.horizontalHeaderItem(column).setToolTip(estimate.model)
    trust = "\n".join(f"{TITLES[estimate.network]}: {estimate.trust}" for estimate in estimates)
    widgets.say(ui.wholeScanLabel, trust)


def _titles(methods: list[str], by_artery: bool) -> list[str]:
    from ..core.labels import MAIN_ARTERIES

    named = {"threshold": _("Clinical"), "decomposition": _("Map")}
    agree = [_("{method} agrees").format(method=named[method]) for method in methods]
    arteries = [artery.key for artery in MAIN_ARTERIES] if by_artery else []
    return [_("Whole-scan estimate"), _("Prediction"), *agree, *arteries]


def _answer(estimate: WholeScanEstimate) -> str:
    from ..core.text import percent

    prediction = estimate.prediction
    if estimate.total is None:
        return f"{_('calcium') if prediction.calcium else _('none')} ({percent(estimate.probability)})"
    return f"{estimate.total:.0f} ({prediction.risk_class})"


def _ofArteries(estimate: WholeScanEstimate, shown: bool) -> list[str]:
    from ..core.labels import MAIN_ARTERIES

    scores = estimate.agatston or {}
    return [f"{scores[artery]:.0f}" if artery in scores else "" for artery in MAIN_ARTERIES if shown]


def _agrees(found: Agreement | None) -> str:
    if found is None:
        return _("not reviewed")
    return ("⚠ " if found.far else "") + found.text
