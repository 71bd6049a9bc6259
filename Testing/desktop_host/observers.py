"""Observers of MRML and VTK objects by the doubles; all are removed before the widgets end."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Observation(NamedTuple):
    """An observer of an object.

    Attributes:
        watched: The object.
        tag: Tag of the observer.
        callback: Function to call; referenced until the observer is removed, because objects that are freed during
            the removal could call VTK again.
    """

    watched: object
    tag: int
    callback: Callable


_observations: list[Observation] = []


def observe(watched, event, callback: Callable, priority: float = 0.0) -> Observation:
    """Add an observer, to be removed by passing the returned observation to `forget`."""
    observation = Observation(watched, watched.AddObserver(event, callback, priority), callback)
    _observations.append(observation)
    return observation


def forget(observations: list[Observation]) -> None:
    """Remove observers, and empty the list."""
    removals = list(observations)
    observations.clear()
    for observation in removals:
        observation.watched.RemoveObserver(observation.tag)
        if observation in _observations:
            _observations.remove(observation)


def forget_all() -> None:
    """Remove all remaining observers."""
    removals = list(_observations)
    _observations.clear()
    for observation in removals:
        observation.watched.RemoveObserver(observation.tag)
