"""Whole-scan estimates of the scan under review, and their agreement with its current scores."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..core.labels import MAIN_ARTERIES
from . import table_widgets, widgets

if TYPE_CHECKING:
    from ..review.scene import SceneReview
    from ..whole_scan.estimates import Agreement, WholeScanEstimate


def showEstimates(ui, review: SceneReview | None) -> None:
    """Show a table of the estimates and their agreement with the current scores, and notes on their reliability below.

    Both are hidden without estimates. review: None for no result.
    """
    estimates = () if review is None else review.estimates
    ui.wholeScanTable.setVisible(bool(estimates))
    if not estimates:
        widgets.say(ui.wholeScanLabel, "")
        return
    from ..whole_scan.estimates import TITLES, agreements

    results, by_artery = review.results(), any(estimate.record.agatston for estimate in estimates)
    columns = [
        [
            *(TITLES[estimate.network], _predictionText(estimate)),
            *(_agreementText(agreement) for agreement in agreements(estimate, results).values()),
            *(_arteryScores(estimate) if by_artery else ()),
        ]
        for estimate in estimates
    ]
    # One column per estimate, because a row per estimate would be wider than the panel.
    headings, *rows = zip(_titles(list(results), by_artery), *columns, strict=True)
    table_widgets.fillTable(ui.wholeScanTable, headings, rows)
    for column, estimate in enumerate(estimates, 1):
        ui.wholeScanTable.horizontalHeaderItem(column).setToolTip(estimate.record.model.name)
    trust = "\n".join(f"{TITLES[estimate.network]}: {estimate.record.trust}" for estimate in estimates)
    widgets.say(ui.wholeScanLabel, trust)


def _titles(methods: list[str], by_artery: bool) -> list[str]:
    names = {"threshold": _("Clinical"), "decomposition": _("Map")}
    agree = [_("{method} agrees").format(method=names[method]) for method in methods]
    arteries = [artery.key for artery in MAIN_ARTERIES] if by_artery else []
    return [_("Whole-scan estimate"), _("Prediction"), *agree, *arteries]


def _predictionText(estimate: WholeScanEstimate) -> str:
    from ..core.text import percent

    record, prediction = estimate.record, estimate.prediction
    if record.total is None:
        return f"{_('calcium') if prediction.calcium else _('none')} ({percent(record.probability)})"
    return f"{record.total:.0f} ({prediction.risk_class})"


def _arteryScores(estimate: WholeScanEstimate) -> list[str]:
    scores = estimate.record.agatston or {}
    return [f"{scores[artery.key]:.0f}" if artery.key in scores else "" for artery in MAIN_ARTERIES]


def _agreementText(agreement: Agreement | None) -> str:
    if agreement is None:
        return _("not reviewed")
    return ("⚠ " if agreement.differs_widely else "") + agreement.text
