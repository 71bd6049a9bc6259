"""State of the slice-labelling panel for one scan: labels, next slice, viewing times. Independent of Qt."""

# Named as the panel's other parts are.
# ruff: noqa: N802

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ..project.annotation_files import SliceAnnotations, SliceLabel

UNCERTAIN = (0.1, 0.9)
"""Predicted probabilities between which a slice is left to be looked at."""


class Labelling:
    """State of labelling the heart's slices of one scan.

    Args:
        annotations: Store of the labels, written at once.
        slices: Indices k of the slices to label.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self, annotations: SliceAnnotations, slices: Sequence[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._annotations = annotations
        self.slices = tuple(sorted(slices))
        self._clock = clock
        self._steps: list[int] = []  # numbers of labels that one undo takes back
        self._shown: int | None = None
        self._viewedSince: float | None = None
        self._viewedSeconds = 0.0

    @property
    def labels(self) -> dict[int, SliceLabel]:
        """Label by slice index k, including slices outside the heart."""
        return self._annotations.labels

    @property
    def done(self) -> int:
        """Number of labelled slices among those to label."""
        labels = self.labels
        return sum(k in labels for k in self.slices)

    @property
    def isComplete(self) -> bool:
        return self.done == len(self.slices)

    @property
    def canUndo(self) -> bool:
        return self._annotations.can_undo

    def first(self) -> int:
        """Return the first unlabelled slice, or the first slice."""
        return next((k for k in self.slices if k not in self.labels), self.slices[0])

    def after(self, k: int) -> int | None:
        """Return the next unlabelled slice, towards the head and then from the feet; None if all are labelled."""
        unlabelled = [n for n in self.slices if n not in self.labels]
        return next((n for n in unlabelled if n > k), unlabelled[0] if unlabelled else None)

    def neighbour(self, k: int, step: int) -> int | None:
        """Return the next slice to label towards the head (step > 0) or feet; None beyond the last."""
        candidates = [n for n in self.slices if (n > k if step > 0 else n < k)]
        return None if not candidates else (min(candidates) if step > 0 else max(candidates))

    # Viewing time

    def show(self, k: int | None) -> None:
        """Set the slice on screen, and restart its viewing time."""
        if k != self._shown:
            self._shown, self._viewedSeconds = k, 0.0
            if self._viewedSince is not None:
                self._viewedSince = self._clock()

    def pause(self) -> None:
        """Stop the viewing time, as while another module is open."""
        if self._viewedSince is not None:
            self._viewedSeconds += self._clock() - self._viewedSince
            self._viewedSince = None

    def resume(self) -> None:
        """Continue the viewing time."""
        if self._viewedSince is None:
            self._viewedSince = self._clock()

    @property
    def seconds(self) -> float:
        """Viewing time of the slice on screen in seconds."""
        return self._viewedSeconds + (0.0 if self._viewedSince is None else self._clock() - self._viewedSince)

    # Actions of the annotator

    def label(self, k: int, label: SliceLabel) -> int | None:
        """Save a label; return the slice to show next, or None if all are labelled.

        Raises OSError or CTError if saving fails; then nothing has changed.
        """
        self._annotations.set(k, label, self.seconds if k == self._shown else None)
        self._steps.append(1)
        # A second label of the slice gets its own viewing time.
        self._viewedSeconds = 0.0
        if self._viewedSince is not None:
            self._viewedSince = self._clock()
        return self.after(k)

    def confirm(self, probabilities: Mapping[int, float]) -> int | None:
        """Label the unlabelled slices of certain predictions as predicted; return the slice to show next, or None.

        They get no viewing time. Raises as `label`.
        """
        low, high = UNCERTAIN
        unlabelled = sorted({*self.slices} & probabilities.keys() - self.labels.keys())
        certain = {k: probabilities[k] >= high for k in unlabelled if not low < probabilities[k] < high}
        labels = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
        return self.labelAll({k: labels[is_visible] for k, is_visible in certain.items()})

    def labelAll(self, labels: Mapping[int, SliceLabel]) -> int | None:
        """Save labels as one step to undo, without viewing times; return the slice to show next. Raises as `label`."""
        self._steps.append(0)
        for k, label in labels.items():
            self._annotations.set(k, label)
            self._steps[-1] += 1
        return None if self.isComplete else self.first()

    def undo(self) -> int | None:
        """Undo the last step; return its first slice, or None if there is nothing to undo. Raises as `label`."""
        k = None
        for _label in range(self._steps.pop() if self._steps else 1):
            k = self._annotations.undo() if self.canUndo else k
        return k
