"""Whole-scan estimates in the report: who says what, who agrees, what each is worth, and what swayed it."""

from __future__ import annotations

from ..core.labels import MAIN_ARTERIES
from ..core.text import percent
from ..results import MethodResult, ScoreResult
from ..whole_scan.estimates import RADIOMICS, TITLES, VESSELS, Agreement, WholeScanEstimate, agreements, prediction_of
from . import pictures
from .markup import Markup, figure, fragment, head, row, small, table, tag

INTRODUCTION = (
    "These models evaluate the scan as a whole instead of scoring lesion by lesion, so many of their errors differ "
    "from those of the scores above. Where all agree, a gross error is less likely; where they differ, review the "
    "slices. A score that a reader has reviewed takes precedence over these estimates."
)

_SHORT = {"threshold": "Clinical rule", "decomposition": "Calcium map"}

_NOT_REVIEWED = tag.span("not reviewed", class_="unknown")


def estimates_as_html(result: ScoreResult) -> Markup:
    """A section of the report, with a heading. result: with at least one whole-scan estimate."""
    return fragment(
        tag.h2("Whole-scan estimates"),
        tag.p(INTRODUCTION),
        _table(result),
        (tag.p(tag.b(f"{TITLES[o.network]}: reliability."), f" {o.trust}") for o in result.estimates),
        ({VESSELS: _saliency, RADIOMICS: _contributions}[o.network](result, o) for o in result.estimates),
    )


def _table(result: ScoreResult) -> Markup:
    methods = result.methods
    scored = any(estimate.agatston is not None for estimate in result.estimates)
    rows = [_method_row(name, method, methods, scored) for name, method in methods.items()]
    rows += [_estimate_row(estimate, methods, scored) for estimate in result.estimates]
    arteries = [artery.key for artery in MAIN_ARTERIES] if scored else []
    agrees = [f"Agrees with {_SHORT[name].lower()}" for name in methods]
    titles = ["", *arteries, "Agatston", "Class", "Calcium", *agrees]
    return table([head(*titles), *rows], scroll=True)


def _method_row(name: str, method: MethodResult, methods: dict[str, MethodResult], arteries: bool) -> Markup:
    prediction = prediction_of(name, method)
    title = _SHORT[name] if prediction is None else prediction.who
    empty = [""] * len(methods)
    if prediction is None:
        cells = [*([""] * len(MAIN_ARTERIES) if arteries else []), _NOT_REVIEWED, "", "", *empty]
        return row(title, *cells)
    of_arteries = [f"{method.arteries[a].clinical_agatston:.0f}" for a in MAIN_ARTERIES] if arteries else []
    return row(
        title,
        *of_arteries,
        f"{prediction.agatston:.0f}",
        _whole(prediction.risk_class),
        _yes(prediction.calcium),
        *empty,
    )


def _estimate_row(estimate: WholeScanEstimate, methods: dict[str, MethodResult], arteries: bool) -> Markup:
    prediction = estimate.prediction
    agreed = [_agrees(found) for found in agreements(estimate, methods).values()]
    title = fragment(f"{TITLES[estimate.network]} ", tag.code(estimate.model))
    if estimate.agatston is None:
        probability = f"{percent(estimate.probability)}; positive from {percent(estimate.limit)}"
        answer = fragment(f"{_yes(prediction.calcium)} ", tag.span(f"({probability})", class_="small"))
        return row(title, *(["–"] * len(MAIN_ARTERIES) if arteries else []), "–", "–", answer, *agreed)
    of_arteries = [f"{estimate.agatston[artery]:.0f}" for artery in MAIN_ARTERIES]
    return row(
        title,
        *of_arteries,
        _whole(f"about {estimate.total:.0f}"),
        _whole(prediction.risk_class),
        _yes(prediction.calcium),
        *agreed,
    )


def _agrees(found: Agreement | None) -> str:
    if found is None:
        return _NOT_REVIEWED
    return tag.span(found.text, class_="changed") if found.far or found.text == "differs" else found.text


def _yes(calcium: bool) -> str:
    return "yes" if calcium else "no"


def _whole(text: str) -> Markup:
    """On one line."""
    return tag.span(text, class_="line")


def _saliency(result: ScoreResult, estimate: WholeScanEstimate) -> Markup | None:
    if estimate.saliency is None:
        return None
    title = tag.h3(f"{TITLES[estimate.network]}: saliency")
    lesions = result.methods["threshold"].lesions
    found = pictures.saliency_picture(result.scan, result.heart.mask, lesions, estimate.saliency)
    if found is None:
        return fragment(title, tag.p("No change in any voxel would have changed the estimate."))
    jpeg, k = found
    caption = (
        f"Slice {k} has the highest saliency. Orange marks where a change would affect the total most. It does not "
        "outline calcium; where it lies on bone or lung, do not rely on the estimate."
    )
    return fragment(title, tag.div(figure(jpeg, caption), class_="pictures"))


def _contributions(result: ScoreResult, estimate: WholeScanEstimate) -> Markup | None:
    if not estimate.contributions:
        return None
    rows = [
        row(
            name.replace("_", " "), f"{value:+.2f}".replace("-", "−"), "for calcium" if value > 0 else "against calcium"
        )
        for name, value in estimate.contributions.items()
    ]
    note = (
        "The table lists the features with the largest contributions to the log-odds, relative to an average "
        "patient in the training data."
    )
    title = tag.h3(f"{TITLES[estimate.network]}: contributions of features")
    return fragment(title, table([head("Feature", "Contribution", "Direction"), *rows]), small(note))
