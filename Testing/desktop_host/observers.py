"""Observers that the doubles put on MRML and VTK objects; all are taken off before the widgets end."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Observation(NamedTuple):
    """callback: kept until the observer is off; were it freed by VTK's removal, what it holds could call VTK again
    in the middle of that."""

    watched: object
    tag: int
    callback: Callable


_observations: list[Observation] = []


def observe(watched, event, callback: Callable, priority: float = 0.0) -> Observation:
    """Call back at an event of an object, until `forget` is given what this returns."""
    observation = Observation(watched, watched.AddObserver(event, callback, priority), callback)
    _observations.append(observation)
    return observation


def forget(observations: list[Observation]) -> None:
    """Take observers off, and empty the list."""
    ended = list(observations)
    observations.clear()
    for observation in ended:
        observation.watched.RemoveObserver(observation.tag)
        if observation in _observations:
            _observations.remove(observation)


def forget_all() -> None:
    """Take off what is left."""
    ended = list(_observations)
    _observations.clear()
    for observation in ended:
        observation.watched.RemoveObserver(observation.tag)
