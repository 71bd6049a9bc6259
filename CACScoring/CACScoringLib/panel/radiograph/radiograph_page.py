"""The page of radiographs: one made of the CT, and the scoring of one."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from ..parameters import CACScoringParameterNode
from ..worker import Worker
from .drr_section import DrrSection
from .radiograph_section import RadiographSection

if TYPE_CHECKING:
    from ...review.scene import SceneReview


class RadiographPage:
    """Both sections as one. page: of `ui.pages`, which holds their widgets."""

    def __init__(self, ui, page) -> None:
        self._ui, self._page = ui, page
        self.drr = DrrSection(ui, Worker(), Worker(), self._isInSight)
        self.scoring = RadiographSection(ui, Worker())
        ui.pages.currentChanged.connect(lambda *_args: self.update())

    def setState(self, state: CACScoringParameterNode | None) -> None:
        """state: None while the panel is closed."""
        for section in (self.drr, self.scoring):
            section.setState(state)

    def setReview(self, review: SceneReview | None) -> None:
        self.drr.setReview(review)

    def update(self) -> None:
        """Show the state."""
        for section in (self.drr, self.scoring):
            section.update()

    def cancel(self) -> None:
        for section in (self.drr, self.scoring):
            section.cancel()

    def closeScene(self) -> None:
        for section in (self.drr, self.scoring):
            section.closeScene()

    def _isInSight(self) -> bool:
        return self._ui.pages.currentWidget() is self._page
