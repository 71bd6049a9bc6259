"""One scan's slices in labelling: which comes next, its label, and how long each was looked at. Knows no Qt."""

# Named as the panel's other parts are.
# ruff: noqa: N802

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ...project.annotations import SliceAnnotations, SliceLabel


class Labelling:
    """The state of labelling the heart's slices of one scan.

    annotations: where labels are saved, at once. slices: k of those that are to be labelled. clock: seconds that only
    grow.
    """

    def __init__(
        self, annotations: SliceAnnotations, slices: Sequence[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._annotations = annotations
        self.slices = tuple(sorted(slices))
        self._clock = clock
        self._shown: int | None = None
        self._viewedSince: float | None = None
        self._viewedSeconds = 0.0

    @property
    def labels(self) -> dict[int, SliceLabel]:
        """By k, also of slices outside the heart."""
        return self._annotations.labels

    @property
    def done(self) -> int:
        """How many of the slices that are to be labelled have a label."""
        labels = self.labels
        return sum(k in labels for k in self.slices)

    @property
    def isComplete(self) -> bool:
        return self.done == len(self.slices)

    @property
    def canUndo(self) -> bool:
        return self._annotations.can_undo

    def first(self) -> int:
        """Where to begin: the first slice without a label, or the first of all."""
        return next((k for k in self.slices if k not in self.labels), self.slices[0])

    def after(self, k: int) -> int | None:
        """The next slice without a label, towards the head and then from the feet; None when there is none."""
        unlabelled = [n for n in self.slices if n not in self.labels]
        return next((n for n in unlabelled if n > k), unlabelled[0] if unlabelled else None)

    def neighbour(self, k: int, step: int) -> int | None:
        """The slice to be labelled that is so many further towards the head; None beyond the last."""
        candidates = [n for n in self.slices if (n > k if step > 0 else n < k)]
        return None if not candidates else (min(candidates) if step > 0 else max(candidates))

    # The time a slice is looked at

    def show(self, k: int | None) -> None:
        """A slice is shown now; time is counted from the moment it comes."""
        if k != self._shown:
            self._shown, self._viewedSeconds = k, 0.0
            if self._viewedSince is not None:
                self._viewedSince = self._clock()

    def pause(self) -> None:
        """The slice is not looked at, as while another module is open."""
        if self._viewedSince is not None:
            self._viewedSeconds += self._clock() - self._viewedSince
            self._viewedSince = None

    def resume(self) -> None:
        """The slice is looked at again."""
        if self._viewedSince is None:
            self._viewedSince = self._clock()

    @property
    def seconds(self) -> float:
        """How long the shown slice has been looked at."""
        return self._viewedSeconds + (0.0 if self._viewedSince is None else self._clock() - self._viewedSince)

    # What the annotator does

    def label(self, k: int, label: SliceLabel) -> int | None:
        """Save a label. Returns the slice to show next, or None when all are labelled.

        Raises what saving raises (OSError, CTError); then nothing has changed.
        """
        self._annotations.set(k, label, self.seconds if k == self._shown else None)
        # What is said again about a slice is looked at anew.
        self._viewedSeconds = 0.0
        if self._viewedSince is not None:
            self._viewedSince = self._clock()
        return self.after(k)

    def undo(self) -> int | None:
        """Take the last label back. Returns its slice, or None when there is nothing to take back."""
        return self._annotations.undo() if self.canUndo else None
