"""Second opinions in the report: who says what, who agrees, what each is worth, and what swayed it."""

from __future__ import annotations

from ..core.labels import MAIN_ARTERIES
from ..core.text import percent
from ..results import MethodResult, ScoreResult
from ..whole_scan.second_opinion import RADIOMICS, TITLES, VESSELS, Agreement, Opinion, agreements, statement_of
from . import pictures
from .markup import Markup, figure, fragment, head, row, small, table, tag

INTRODUCTION = (
    "These models judge the scan as a whole instead of scoring lesion by lesion, so that many of their mistakes are "
    "others than those of the scores above. Where all agree, a gross error is less likely; where they differ, look at "
    "the slices. A score that a reader has reviewed stands, whatever they say."
)

_SHORT = {"threshold": "Clinical rule", "decomposition": "Calcium map"}

_NOT_REVIEWED = tag.span("not reviewed", class_="unknown")


def opinions_as_html(result: ScoreResult) -> Markup:
    """A section of the report, with a heading. result: with at least one opinion."""
    return fragment(
        tag.h2("Second opinions"),
        tag.p(INTRODUCTION),
        _table(result),
        (tag.p(tag.b(f"{TITLES[o.network]}: what it is worth."), f" {o.trust}") for o in result.opinions),
        ({VESSELS: _saliency, RADIOMICS: _contributions}[o.network](result, o) for o in result.opinions),
    )


def _table(result: ScoreResult) -> Markup:
    methods = result.methods
    scored = any(opinion.agatston is not None for opinion in result.opinions)
    rows = [_method_row(name, method, methods, scored) for name, method in methods.items()]
    rows += [_opinion_row(opinion, methods, scored) for opinion in result.opinions]
    arteries = [artery.key for artery in MAIN_ARTERIES] if scored else []
    agrees = [f"Agrees with {_SHORT[name].lower()}" for name in methods]
    titles = ["", *arteries, "Agatston", "Class", "Calcium", *agrees]
    return table([head(*titles), *rows], scroll=True)


def _method_row(name: str, method: MethodResult, methods: dict[str, MethodResult], arteries: bool) -> Markup:
    said = statement_of(name, method)
    title = _SHORT[name] if said is None else said.who
    empty = [""] * len(methods)
    if said is None:
        cells = [*([""] * len(MAIN_ARTERIES) if arteries else []), _NOT_REVIEWED, "", "", *empty]
        return row(title, *cells)
    scale = 1.0 if name == "threshold" else method.agatston_scale or 1.0
    of_arteries = [f"{scale * method.arteries[artery].agatston:.0f}" for artery in MAIN_ARTERIES] if arteries else []
    return row(title, *of_arteries, f"{said.agatston:.0f}", _whole(said.risk_class), _yes(said.calcium), *empty)


def _opinion_row(opinion: Opinion, methods: dict[str, MethodResult], arteries: bool) -> Markup:
    said = opinion.says
    agreed = [_agrees(found) for found in agreements(opinion, methods).values()]
    title = fragment(f"{TITLES[opinion.network]} ", tag.code(opinion.model))
    if opinion.agatston is None:
        probability = f"{percent(opinion.probability)}; yes from {percent(opinion.limit)}"
        answer = fragment(f"{_yes(said.calcium)} ", tag.span(f"({probability})", class_="small"))
        return row(title, *(["–"] * len(MAIN_ARTERIES) if arteries else []), "–", "–", answer, *agreed)
    of_arteries = [f"{opinion.agatston[artery]:.0f}" for artery in MAIN_ARTERIES]
    return row(
        title, *of_arteries, _whole(f"about {opinion.total:.0f}"), _whole(said.risk_class), _yes(said.calcium), *agreed
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


def _saliency(result: ScoreResult, opinion: Opinion) -> Markup | None:
    if opinion.saliency is None:
        return None
    title = tag.h3(f"{TITLES[opinion.network]}: what swayed it")
    lesions = result.methods["threshold"].lesions
    found = pictures.saliency_picture(result.scan, result.heart.mask, lesions, opinion.saliency)
    if found is None:
        return fragment(title, tag.p("No change of any voxel would have changed its answer."))
    jpeg, k = found
    caption = (
        f"Slice {k}, the one with the highest value. Orange: what sways the total most. It does not outline calcium; "
        "where it lies on bone or lung, do not believe the answer."
    )
    return fragment(title, tag.div(figure(jpeg, caption), class_="pictures"))


def _contributions(result: ScoreResult, opinion: Opinion) -> Markup | None:
    if not opinion.contributions:
        return None
    rows = [
        row(name.replace("_", " "), f"{value:+.2f}".replace("-", "−"), "for calcium" if value > 0 else "against")
        for name, value in opinion.contributions.items()
    ]
    note = (
        "The features that moved the answer most, on the scale of the log-odds, against an average patient of training."
    )
    title = tag.h3(f"{TITLES[opinion.network]}: what swayed it")
    return fragment(title, table([head("Feature", "Adds", "Speaks"), *rows]), small(note))
