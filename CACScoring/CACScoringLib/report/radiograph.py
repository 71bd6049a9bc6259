"""Reports of a scored radiograph: self-contained HTML page, JSON and text."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from PIL import Image, ImageDraw

from ..core.text import percent
from ..networks.configs import STANDARD_MM
from ..radiograph.score import CardArea, RadiographResult, ViewResult, area_of, proportion_of, threshold_name
from .page import rendered
from .pictures import Picture, as_jpeg

SCHEMA = "cac-radiograph/1"

PICTURE_PIXELS = 648
"""Side of the pictures in pixels."""

SQUARE_COLOUR, EVIDENCE_COLOUR = (64, 196, 255), (255, 145, 0)
OPACITY, OPAQUE_FROM = 0.75, 0.5
"""Highest opacity of the evidence, and the probability from which it has this."""


def result_as_html(result: RadiographResult, identify: bool = False) -> str:
    """Return the report page. identify: Show the patient's name and ID and the study date."""
    card, thresholds = result.card, {threshold_name(t.agatston): t for t in result.thresholds}
    choices = [False, True] if result.factors else [False]
    areas = [area_of(card, threshold.agatston) for threshold in result.thresholds]
    proportions = {name: proportion_of(card, threshold.agatston) for name, threshold in thresholds.items()}
    titles = {"lateral": "Lateral"}
    return rendered(
        "radiograph.html",
        f"Coronary calcium by radiograph: {' and '.join(_file_name(view) for view in result.views.values())}",
        result=result,
        columns=["Radiograph alone", "With age, sex, BMI"][: len(choices)],
        card_area=next((area for area in areas if area is not None), None),
        thresholds={
            name: [(t.with_factors if joint else t.image, area_of(card, t.agatston, joint)) for joint in choices]
            for name, t in thresholds.items()
        },
        proportions={name: share for name, share in proportions.items() if share is not None},
        views={titles.get(name, name): _pictures(result, view) for name, view in result.views.items()},
        provenance=result.provenance and result.provenance.in_words(identify),
        files={titles.get(name, name): _facts(view, identify) for name, view in result.views.items()},
    )


def result_as_json(result: RadiographResult, seconds: dict[str, float], identify: bool = False) -> dict[str, object]:
    """Return the content of `scores.json`. seconds: Duration of each step. identify: As in `Provenance.facts`."""
    return {
        "schema": SCHEMA,
        "input": {name: _input(view) for name, view in result.views.items()},
        "warnings": [{"code": w.code, "message": w.message} for w in result.warnings],
        "models": [{"name": result.card.name, "sha256": result.card.sha256}],
        "factors": result.factors and asdict(result.factors),
        "thresholds": [
            {
                "agatston": int(threshold.agatston) if threshold.agatston.is_integer() else threshold.agatston,
                "probability_image": threshold.image,
                "probability_with_factors": threshold.with_factors,
                "auc": _value(area_of(result.card, threshold.agatston)),
                "auc_with_factors": _value(area_of(result.card, threshold.agatston, True)),
            }
            for threshold in result.thresholds
        ],
        "views": {
            name: {
                "heart_centre": list(view.heart_centre),
                "field_mm": result.field_mm,
                "view_file": f"view_{name}.nii.gz",
                "evidence_file": f"evidence_{name}.nii.gz",
            }
            for name, view in result.views.items()
        },
        "provenance": result.provenance and asdict(result.provenance.stated(identify)),
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def result_as_text(result: RadiographResult) -> str:
    """Return a summary for a terminal."""
    lines = [f"{'Agatston score':<20}{'radiograph alone':>20}{'with age, sex, BMI':>20}"]
    for threshold in result.thresholds:
        combined = "–" if threshold.with_factors is None else percent(threshold.with_factors)
        alone = "cannot be told" if threshold.image is None else percent(threshold.image)
        lines.append(f"{threshold_name(threshold.agatston):<20}{alone:>20}{combined:>20}")
    return "\n".join([*lines, "Probabilities, not scores. For research only."])


def view_picture(view: ViewResult, field_mm: float, evidence: bool) -> Image.Image:
    """Draw a view with the evaluated square, and with the located evidence as an overlay."""
    grey = Image.fromarray(np.rint(view.standard * 255).astype(np.uint8))
    picture = grey.resize((PICTURE_PIXELS,) * 2, Image.Resampling.BICUBIC).convert("RGB")
    if evidence:
        opacity = np.minimum(view.evidence / OPAQUE_FROM, 1) * OPACITY
        mask = Image.fromarray(np.rint(opacity * 255).astype(np.uint8))
        picture.paste(EVIDENCE_COLOUR, mask=mask.resize(picture.size, Image.Resampling.BICUBIC))
    zoom = PICTURE_PIXELS / view.standard.shape[0]
    half = field_mm / STANDARD_MM / 2
    y, x = view.heart_centre
    box = [((c + 0.5) + side) * zoom for side in (-half, half) for c in (x, y)]
    ImageDraw.Draw(picture).rectangle(box, outline=SQUARE_COLOUR, width=2)
    return picture


def _value(area: CardArea | None) -> float | None:
    return None if area is None else area.value


def _pictures(result: RadiographResult, view: ViewResult) -> list[Picture]:
    caption = "The radiograph as the model received it; the model evaluates the square around the heart"
    drawn = {caption: view_picture(view, result.field_mm, False)}
    if view.evidence.any():
        drawn["Where the model sees evidence of coronary calcium"] = view_picture(view, result.field_mm, True)
    return [Picture(as_jpeg(picture), caption) for caption, picture in drawn.items()]


def _facts(view: ViewResult, identify: bool) -> dict[str, object]:
    radiograph = view.radiograph
    rows, columns = radiograph.picture.shape
    size = radiograph.pixel_mm
    return {
        "file": _file_name(view),
        "view": radiograph.view,
        "pixels": f"{columns} × {rows}",
        "pixel size": None if size is None else f"{size[0]:.4g} × {size[1]:.4g} mm",
        "heart found at": "row {:.0f}, column {:.0f} of the image above, in mm".format(
            *(STANDARD_MM * place for place in view.heart_centre)
        ),
        **{key: value for key, value in radiograph.acquisition.facts(identify).items() if value is not None},
    }


def _input(view: ViewResult) -> dict[str, object]:
    radiograph = view.radiograph
    rows, columns = radiograph.picture.shape
    return {
        "file": _file_name(view),
        "file_format": radiograph.acquisition.file_format,
        "view": radiograph.view,
        "pixel_mm": None if radiograph.pixel_mm is None else list(radiograph.pixel_mm),
        "rows": rows,
        "columns": columns,
        **radiograph.acquisition.pseudonym,
    }


def _file_name(view: ViewResult) -> str:
    return view.radiograph.source.name if view.radiograph.source else "radiograph"


def json_text(document: dict[str, object]) -> str:
    """Return a document as the text of `scores.json`."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
