"""A scored radiograph for people and programs: a page that needs no other file, JSON, and lines of text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

from ..core.text import percent
from ..models.cards import ModelCard
from ..radiograph.card import CardArea, area_of, proportion_of, threshold_name
from ..radiograph.score import RadiographResult, ThresholdResult, ViewResult
from ..radiograph.view import STANDARD_MM
from .markup import (
    RESEARCH_ONLY,
    Markup,
    facts_table,
    figure,
    fragment,
    head,
    in_words,
    page,
    row,
    small,
    table,
    tag,
    warning_list,
)

SCHEMA = "cac-radiograph/1"

PICTURE_PIXELS = 648
"""Side of the page's pictures: one and a half times the views', so that lines are fine."""

SQUARE_COLOUR, SALIENCY_COLOUR = (64, 196, 255), (255, 145, 0)
OPACITY = 0.75
"""Of the overlay where the saliency is highest."""


def result_as_html(result: RadiographResult, identify: bool = False) -> str:
    """The page. identify: with the patient's name and id, and the study's date."""
    names = " and ".join(_file_name(view) for view in result.views.values())
    title = f"Coronary calcium by radiograph: {names}"
    return page(
        title,
        tag.h1(title),
        RESEARCH_ONLY,
        _warnings(result),
        tag.h2("Probability of coronary calcium"),
        _table(result),
        *(_pictures(result, name) for name in result.views),
        _model(result),
        *(_facts(name, view, identify) for name, view in result.views.items()),
    )


def result_as_json(result: RadiographResult, seconds: dict[str, float]) -> dict:
    """The content of `scores.json`. seconds: by step."""
    factors = result.factors
    return {
        "schema": SCHEMA,
        "input": {name: _input(view) for name, view in result.views.items()},
        "warnings": [{"code": w.code, "message": w.message} for w in result.warnings],
        "models": [{"name": result.card.name, "sha256": result.card.sha256}],
        "factors": None
        if factors is None
        else {"age_years": factors.age_years, "sex": factors.sex, "bmi_kg_m2": factors.bmi_kg_m2},
        "thresholds": [
            {
                "agatston": int(found.agatston) if found.agatston.is_integer() else found.agatston,
                "probability_image": found.image,
                "probability_with_factors": found.with_factors,
                "auc": _value(area_of(result.card, found.agatston)),
                "auc_with_factors": _value(area_of(result.card, found.agatston, True)),
            }
            for found in result.thresholds
        ],
        "views": {
            name: {
                "heart_centre": list(view.heart_centre),
                "field_mm": result.field_mm,
                "view_file": f"view_{name}.nii.gz",
                "saliency_file": f"saliency_{name}.nii.gz",
            }
            for name, view in result.views.items()
        },
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def result_as_text(result: RadiographResult) -> str:
    """A few lines for a terminal."""
    lines = [f"{'Agatston score':<20}{'radiograph alone':>20}{'with age, sex, BMI':>20}"]
    for found in result.thresholds:
        both = "–" if found.with_factors is None else percent(found.with_factors)
        lines.append(f"{threshold_name(found.agatston):<20}{percent(found.image):>20}{both:>20}")
    return "\n".join([*lines, "Probabilities, not scores. For research only."])


def view_picture(view: ViewResult, field_mm: float, threshold: int | None = None) -> Image.Image:
    """A view with the square that was read, and what mattered to a threshold (None: without) laid over it."""
    grey = Image.fromarray(np.rint(view.standard * 255).astype(np.uint8))
    picture = grey.resize((PICTURE_PIXELS,) * 2, Image.Resampling.BICUBIC).convert("RGB")
    if threshold is not None:
        mask = Image.fromarray(np.rint(view.saliency[threshold] * OPACITY * 255).astype(np.uint8))
        picture.paste(SALIENCY_COLOUR, mask=mask.resize(picture.size, Image.Resampling.BICUBIC))
    zoom = PICTURE_PIXELS / view.standard.shape[0]
    half = field_mm / STANDARD_MM / 2
    y, x = view.heart_centre
    box = [((c + 0.5) + side) * zoom for side in (-half, half) for c in (x, y)]
    ImageDraw.Draw(picture).rectangle(box, outline=SQUARE_COLOUR, width=2)
    return picture


def _warnings(result: RadiographResult) -> Markup | None:
    if not result.warnings:
        return None
    return tag.div(tag.b("Important warnings"), warning_list(result.warnings), class_="unreviewed")


def _table(result: RadiographResult) -> Markup:
    factors = result.factors
    ways = {"Radiograph alone": False} | ({"With age, sex, BMI": True} if factors else {})
    areas = [area_of(result.card, found.agatston) for found in result.thresholds]
    told = next((area for area in areas if area is not None), None)
    titles = [cell for way in ways for cell in (way, *(["AUC"] if told else []))]
    rows = [row(*_cells(result.card, found, ways.values(), told is not None)) for found in result.thresholds]
    notes = [
        "The table gives the probability that a CT of this patient would show such a score; it is not a calcium score."
    ]
    if factors:
        person = {"F": "woman", "M": "man"}[factors.sex]
        notes.append(
            f"Age, sex and body mass index were taken into account: a {person} of {factors.age_years:g} years, "
            f"{factors.bmi_kg_m2:g} kg/m²."
        )
    else:
        notes.append("Age, sex and body mass index were not taken into account.")
    proportions = {
        threshold_name(found.agatston): proportion_of(result.card, found.agatston) for found in result.thresholds
    }
    common = ", ".join(f"{name}: {share:.0%}" for name, share in proportions.items() if share is not None)
    seen = f" ({common})" if common else ""
    notes.append(
        "The probability holds where such scores are as common as among the patients on whom the model was "
        f"calibrated{seen}."
    )
    if told:
        notes.append(
            "The AUC, with its 95% confidence interval, is the probability that of two patients, of whom one has "
            "such a score, the model gives that one the higher probability; 0.5 is chance level. According to the "
            f"model's card it was measured on {told.who}."
        )
    first = head("Agatston score", *titles)
    return fragment(table([first, *rows], "probabilities", scroll=True), small(" ".join(notes)))


def _cells(card: ModelCard, found: ThresholdResult, ways: Iterable[bool], told: bool) -> list[object]:
    cells: list[object] = [tag.b(threshold_name(found.agatston))]
    for with_factors in ways:
        probability = found.with_factors if with_factors else found.image
        cells.append("–" if probability is None else _bar(probability))
        if told:
            cells.append(_area_text(area_of(card, found.agatston, with_factors)))
    return cells


def _area_text(area: CardArea | None) -> Markup:
    if area is None:
        return fragment("–")
    interval = None if area.low is None else [" ", tag.span(f"({area.low:.2f}–{area.high:.2f})", class_="small")]
    return fragment(f"{area.value:.2f}", interval)


def _value(area: CardArea | None) -> float | None:
    return None if area is None else area.value


def _bar(probability: float) -> Markup:
    return fragment(tag.span(tag.i(style=f"width:{probability:.1%}"), class_="bar"), percent(probability))


def _pictures(result: RadiographResult, name: str) -> Markup:
    view, field = result.views[name], result.field_mm
    figures = [
        _figure(
            view_picture(view, field),
            "The radiograph as the model received it; the model evaluates the square around the heart",
        )
    ]
    figures += [
        _figure(view_picture(view, field, n), f"Saliency for “{threshold_name(found.agatston)}”")
        for n, found in enumerate(result.thresholds)
    ]
    note = (
        "Orange marks where a change in brightness would change the probability most; each image is scaled to its "
        "own maximum. It does not outline calcium."
    )
    return fragment(tag.h2(f"{_title(name)} radiograph"), small(note), tag.div(figures, class_="pictures large"))


def _model(result: RadiographResult) -> Markup:
    card = result.card
    facts = {
        "name": card.name,
        "SHA-256": card.sha256,
        "backbone": card.config.get("backbone"),
        "views": " and ".join(card.config["views"]),
        "contrast": card.config.get("enhancement"),
        "trained on": card.training.data,
        "intended use": card.intended_use,
        "licence": card.licence,
    }
    return fragment(tag.h2("Model"), facts_table(facts))


def _facts(name: str, view: ViewResult, identify: bool) -> Markup:
    radiograph = view.radiograph
    rows, columns = radiograph.picture.shape
    size = radiograph.pixel_mm
    facts = {
        "file": _file_name(view),
        "view": radiograph.view,
        "pixels": f"{columns} × {rows}",
        "pixel size": None if size is None else f"{size[0]:.4g} × {size[1]:.4g} mm",
        "heart found at": "row {:.0f}, column {:.0f} of the image above, in mm".format(*view.heart_centre),
        **{key: value for key, value in radiograph.acquisition.facts(identify).items() if value is not None},
    }
    return fragment(tag.h2(f"{_title(name)} radiograph: information from its file"), facts_table(in_words(facts)))


def _title(view: str) -> str:
    return {"lateral": "Lateral"}.get(view, view)


def _input(view: ViewResult) -> dict:
    radiograph = view.radiograph
    rows, columns = radiograph.picture.shape
    return {
        "file": _file_name(view),
        "file_format": radiograph.acquisition.file_format,
        "view": radiograph.view,
        "pixel_mm": None if radiograph.pixel_mm is None else list(radiograph.pixel_mm),
        "rows": rows,
        "columns": columns,
    }


def _file_name(view: ViewResult) -> str:
    return view.radiograph.source.name if view.radiograph.source else "radiograph"


def _figure(picture: Image.Image, caption: str) -> Markup:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, subsampling=0)
    return figure(stream.getvalue(), caption)


def json_text(document: dict) -> str:
    """A document as `scores.json` has it."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
