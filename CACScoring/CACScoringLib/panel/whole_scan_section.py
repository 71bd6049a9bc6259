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

    results = review.results()
    rows = [
        [
            *(TITLES[estimate.network], _answer(estimate)),
            *(_agrees(found) for found in agreements(estimate, results).values()),
            *_ofArteries(estimate),
        ]
        for estimate in estimates
    ]
    models = [estimate.model for estimate in estimates]
    table_widgets.fillTable(ui.wholeScanTable, _titles(estimates, list(results)), rows, models)
    trust = "\n".join(f"{TITLES[estimate.network]}: {estimate.trust}" for estimate in estimates)
    widgets.say(ui.wholeScanLabel, trust)


def _titles(estimates: tuple[WholeScanEstimate, ...], methods: list[str]) -> list[str]:
    """What agrees comes before the arteries, which a narrow panel may hide."""
    from ..core.labels import MAIN_ARTERIES

    named = {"threshold": _("Clinical"), "decomposition": _("Map")}
    agree = [_("{method}\nagrees").format(method=named[method]) for method in methods]
    arteries = [artery.key for artery in MAIN_ARTERIES] if any(estimate.agatston for estimate in estimates) else []
    return [_("Whole-scan estimate"), _("Prediction"), *agree, *arteries]


def _answer(estimate: WholeScanEstimate) -> str:
    from ..core.text import percent

    prediction = estimate.prediction
    if estimate.total is None:
        return f"{_('calcium') if prediction.calcium else _('none')} ({percent(estimate.probability)})"
    return f"{estimate.total:.0f} ({prediction.risk_class})"


def _ofArteries(estimate: WholeScanEstimate) -> list[str]:
    from ..core.labels import MAIN_ARTERIES

    return [] if estimate.agatston is None else [f"{estimate.agatston[artery]:.0f}" for artery in MAIN_ARTERIES]


def _agrees(found: Agreement | None) -> str:
    if found is None:
        return _("not reviewed")
    return ("⚠ " if found.far else "") + found.text
