"""How far a score can be trusted, as a sentence and a bar."""

from __future__ import annotations

import itertools
import math

from ..results import MethodResult
from ..scoring.uncertainty import CATEGORIES, CATEGORISED_BELOW, LIMITS, TOTAL

WIDTH, HEIGHT = 460, 44
_LEFT, _RIGHT, _BAR = 14, 446, 12
_TICKS = (0, 1, 10, 100, 400, 1000, 3000)
_HIGHEST = 4000.0
_BANDS = ("#e3f0e6", "#fbf3d3", "#fbe0c4", "#f6cfcf")


def interval_text(low: float, high: float) -> str:
    """In whole numbers, as clinics give scores."""
    return f"{low:.0f} to {high:.0f}" if round(low) < round(high) else f"{high:.0f}"


def category_text(method: MethodResult) -> str:
    """The likeliest category and those worth naming beside it: "; category 1–99 with 78 %, 100–399 with 20 %".

    Why there is none where the score is too high; empty for a reviewed score.
    """
    if method.probabilities_withheld:
        return f"; category probabilities are withheld from a score of {CATEGORISED_BELOW:.0f} on"
    likely = sorted(method.category_probabilities.items(), key=lambda one: -one[1])
    named = [one for n, one in enumerate(likely) if n == 0 or one[1] >= 0.05]
    texts = [f"{name.replace('-', '–')} with {_percent(p)}" for name, p in named]
    return f"; category {', '.join(texts)}" if texts else ""


def interval_sentence(method: MethodResult) -> str:
    """The total's interval, without the full stop: "Between 40 and 130; category 1–99 with 78 %".

    Why there is none where a reviewed score lies beyond the study of repeatability; empty where no errors are known.
    """
    if TOTAL not in method.intervals:
        return "No 90 % interval: the repeatability of such high scores was not studied" if method.intervals else ""
    low, high = method.intervals[TOTAL].agatston
    between = f"Between {low:.0f} and {high:.0f}" if round(low) < round(high) else f"About {high:.0f}"
    return between + category_text(method)


def interval_note(method: MethodResult) -> str:
    """What an interval holds, and whose errors it is made of."""
    arteries = (
        "Intervals of arteries come from the errors of single arteries, so they need not agree with that of the total."
    )
    if method.reviewed:
        return (
            "90 % interval for the reviewed score of a second scan of the same patient (repeatability), from the "
            f"scan–rescan study stored with the model. {arteries}"
        )
    if method.calibrated_on is None:
        return (
            "The bar spans 90 %: so often it holds the score that the same patient would have in a still scan without "
            f"noise. It was made on digital patients, and says nothing of errors that they do not have. {arteries}"
        )
    return (
        "The bar spans 90 %: so often it holds the score that the reference's readers would give to this scan. It was "
        f"made on {method.calibrated_on}, and holds for patients and scans like theirs. {arteries}"
    )


def _percent(probability: float) -> str:
    return f"{100 * min(max(probability, 0.01), 0.99):.0f} %"


def _at(score: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * math.log1p(min(score, _HIGHEST)) / math.log1p(_HIGHEST)


def interval_bar(score: float, low: float, high: float, ink: str = "#46535a") -> str:
    """An SVG of a score and its interval on the categories. ink: colour of the numbers below."""
    bounds, middle = (0.0, *LIMITS["agatston"], _HIGHEST), 4 + _BAR
    title = f"Agatston {score:.0f}, 90 % interval {interval_text(low, high)}, on categories {', '.join(CATEGORIES)}"
    bands = zip(itertools.pairwise(bounds), _BANDS, strict=True)
    parts = [_box(_at(first), _at(last), 4, 2 * _BAR, colour) for (first, last), colour in bands]
    parts.append(_box(_at(low), max(_at(high), _at(low) + 2), middle - 3, 6, "#37597a"))
    parts.append(f'<circle cx="{_at(score):.1f}" cy="{middle}" r="6" fill="#fff" stroke="#12283d" stroke-width="3"/>')
    look = f'y="{HEIGHT - 3}" font-size="11" text-anchor="middle" fill="{ink}"'
    parts += [f'<text x="{_at(tick):.1f}" {look}>{tick:,}</text>' for tick in _TICKS]
    return (
        f'<svg role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _box(left: float, right: float, top: float, height: float, fill: str) -> str:
    return f'<rect x="{left:.1f}" width="{right - left:.1f}" y="{top:g}" height="{height:g}" fill="{fill}"/>'
