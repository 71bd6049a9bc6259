"""What second opinions say of the scan under review, and whether they agree with its scores as they are now."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import table_widgets, widgets

if TYPE_CHECKING:
    from ..review.scene import SceneReview
    from ..whole_scan.second_opinion import Agreement, Opinion


class SecondOpinionSection:
    """A table of the opinions, and beneath it what they are worth; both hidden where there are none."""

    def __init__(self, ui) -> None:
        self._ui = ui
        table_widgets.prepareTable(ui.opinionTable)
        self.update(None)

    def update(self, review: SceneReview | None) -> None:
        """Show the opinions beside the scores as they are now. review: None where there is no result."""
        from ..whole_scan.second_opinion import TITLES, agreements

        opinions = () if review is None else review.opinions
        results = {} if review is None else review.results()
        rows = [
            [
                *(TITLES[opinion.network], _answer(opinion)),
                *(_agrees(found) for found in agreements(opinion, results).values()),
                *_ofArteries(opinion),
            ]
            for opinion in opinions
        ]
        table = self._ui.opinionTable
        table_widgets.fillTable(table, _titles(opinions, list(results)), rows, [opinion.model for opinion in opinions])
        table.setVisible(bool(opinions))
        trust = "\n".join(f"{TITLES[opinion.network]}: {opinion.trust}" for opinion in opinions)
        widgets.say(self._ui.opinionsLabel, trust)


def _titles(opinions: tuple[Opinion, ...], methods: list[str]) -> list[str]:
    """What agrees comes before the arteries, which a narrow panel may hide."""
    from ..core.labels import MAIN_ARTERIES

    named = {"threshold": _("Clinical"), "decomposition": _("Map")}
    agree = [_("{method}\nagrees").format(method=named[method]) for method in methods]
    arteries = [artery.key for artery in MAIN_ARTERIES] if any(opinion.agatston for opinion in opinions) else []
    return [_("Second opinion"), _("Says"), *agree, *arteries]


def _answer(opinion: Opinion) -> str:
    from ..core.text import percent

    said = opinion.says
    if opinion.total is None:
        return f"{_('calcium') if said.calcium else _('none')} ({percent(opinion.probability)})"
    return f"{opinion.total:.0f} ({said.risk_class})"


def _ofArteries(opinion: Opinion) -> list[str]:
    from ..core.labels import MAIN_ARTERIES

    return [] if opinion.agatston is None else [f"{opinion.agatston[artery]:.0f}" for artery in MAIN_ARTERIES]


def _agrees(found: Agreement | None) -> str:
    if found is None:
        return _("not reviewed")
    return ("⚠ " if found.far else "") + found.text
