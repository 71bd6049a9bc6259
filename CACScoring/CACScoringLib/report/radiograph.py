"""A scored radiograph for people and programs: a page that needs no other file, JSON, and lines of text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from ..core.text import percent
from ..models.cards import ModelCard
from ..radiograph.card import CardArea, area_of, share_of, threshold_name
from ..radiograph.score import RadiographResult, ThresholdResult, ViewResult
from ..radiograph.view import STANDARD_MM
from .markup import RESEARCH_ONLY, figure, head, page, row

SCHEMA = "cac-radiograph/1"

PICTURE_PIXELS = 648
"""Side of the page's pictures: one and a half times the views', so that lines are fine."""

SQUARE_COLOUR, SALIENCY_COLOUR = (64, 196, 255), (255, 145, 0)
OPACITY = 0.75
"""Of the overlay where the saliency is highest."""

_STYLE = """
.bar { display: inline-block; width: 8rem; height: .7em; background: #e4e9eb; margin-right: .6rem }
.bar i { display: block; height: 100%; background: #2f7f9e }
.pictures figure { width: 468px; max-width: 100% } .facts td:first-child { min-width: 9rem; vertical-align: top }
td:first-child { min-width: 6rem } td { white-space: nowrap } .facts td { white-space: normal }
"""


def result_as_html(result: RadiographResult, identify: bool = False) -> str:
    """The page. identify: with the patient's name and id, and the study's date."""
    names = " and ".join(_file_name(view) for view in result.views.values())
    parts = [
        f"<h1>Coronary calcium by radiograph: {escape(names)}</h1>",
        RESEARCH_ONLY,
        _warnings(result),
        "<h2>Probability of coronary calcium</h2>",
        _table(result),
        *(part for name in result.views for part in _pictures(result, name)),
        _model(result),
        *(_facts(name, view, identify) for name, view in result.views.items()),
    ]
    return page(f"Coronary calcium by radiograph: {names}", "\n".join(parts), _STYLE)


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
    lines = [f"{'Agatston score':<20}{'by the radiograph':>20}{'with age, sex, BMI':>20}"]
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


def _warnings(result: RadiographResult) -> str:
    if not result.warnings:
        return ""
    items = "".join(f"<li>{escape(w.message)} <code>{escape(w.code)}</code></li>" for w in result.warnings)
    return f'<div class="unreviewed"><b>Before you read on</b><ul class="warnings">{items}</ul></div>'


def _table(result: RadiographResult) -> str:
    factors = result.factors
    ways = {"By the radiograph": False} | ({"With age, sex, BMI": True} if factors else {})
    areas = [area_of(result.card, found.agatston) for found in result.thresholds]
    told = next((area for area in areas if area is not None), None)
    titles = [cell for way in ways for cell in (way, *(["AUC"] if told else []))]
    rows = "".join(row(*_cells(result.card, found, ways.values(), told is not None)) for found in result.thresholds)
    notes = ["How probable it is that a CT of this patient would show such a score. This is not a score."]
    if factors:
        person = {"F": "woman", "M": "man"}[factors.sex]
        notes.append(f"Taken into account: a {person} of {factors.age_years:g} years, {factors.bmi_kg_m2:g} kg/m².")
    else:
        notes.append("Age, sex and body mass index were not taken into account.")
    shares = {threshold_name(found.agatston): share_of(result.card, found.agatston) for found in result.thresholds}
    common = ", ".join(f"{name}: {share:.0%}" for name, share in shares.items() if share is not None)
    seen = f" ({common})" if common else ""
    notes.append(f"It holds where such scores are as common as among the patients the model was calibrated on{seen}.")
    if told:
        notes.append(
            "AUC, with its 95% interval: how often, of two patients of whom one has such a score, the model gives that "
            f"one the higher probability; 0.5 is guessing. By the model's card, on {escape(told.who)}."
        )
    first = head("Agatston score", *titles)
    return f'<div class="scroll"><table>{first}{rows}</table></div><p class="small">{" ".join(notes)}</p>'


def _cells(card: ModelCard, found: ThresholdResult, ways: Iterable[bool], told: bool) -> list[str]:
    cells = [f"<b>{threshold_name(found.agatston)}</b>"]
    for with_factors in ways:
        probability = found.with_factors if with_factors else found.image
        cells.append("–" if probability is None else _bar(probability))
        if told:
            cells.append(_area_text(area_of(card, found.agatston, with_factors)))
    return cells


def _area_text(area: CardArea | None) -> str:
    if area is None:
        return "–"
    interval = "" if area.low is None else f' <span class="small">({area.low:.2f}–{area.high:.2f})</span>'
    return f"{area.value:.2f}{interval}"


def _value(area: CardArea | None) -> float | None:
    return None if area is None else area.value


def _bar(probability: float) -> str:
    return f'<span class="bar"><i style="width:{probability:.1%}"></i></span>{escape(percent(probability))}'


def _pictures(result: RadiographResult, name: str) -> list[str]:
    view, field = result.views[name], result.field_mm
    figures = [_figure(view_picture(view, field), "As the model was given it; it judges the square about the heart")]
    figures += [
        _figure(view_picture(view, field, n), f"What sways the answer to “{threshold_name(found.agatston)}” most")
        for n, found in enumerate(result.thresholds)
    ]
    note = (
        "Orange: where a change of brightness would change the answer most, each picture scaled to its own highest. It "
        "does not outline calcium."
    )
    return [
        f"<h2>{_title(name)} radiograph</h2>",
        f'<p class="small">{note}</p><div class="pictures">{"".join(figures)}</div>',
    ]


def _model(result: RadiographResult) -> str:
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
    return "<h2>Model</h2>" + _facts_table(facts)


def _facts(name: str, view: ViewResult, identify: bool) -> str:
    radiograph = view.radiograph
    rows, columns = radiograph.picture.shape
    size = radiograph.pixel_mm
    facts = {
        "file": _file_name(view),
        "view": radiograph.view,
        "pixels": f"{columns} × {rows}",
        "pixel size": None if size is None else f"{size[0]:.4g} × {size[1]:.4g} mm",
        "heart found at": "row {:.0f}, column {:.0f} of the picture above, in mm".format(*view.heart_centre),
        **{key: value for key, value in radiograph.acquisition.facts(identify).items() if value is not None},
    }
    return f"<h2>{_title(name)} radiograph: what its file tells</h2>" + _facts_table(facts)


def _facts_table(facts: dict[str, object]) -> str:
    rows = [row(escape(key.replace("_", " ")), escape("unknown" if v is None else str(v))) for key, v in facts.items()]
    return f"<table class='facts'>{''.join(rows)}</table>"


def _title(view: str) -> str:
    return {"lateral": "Lateral"}.get(view, escape(view))


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


def _figure(picture: Image.Image, caption: str) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, subsampling=0)
    return figure(stream.getvalue(), caption)


def json_text(document: dict) -> str:
    """A document as `scores.json` has it."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
