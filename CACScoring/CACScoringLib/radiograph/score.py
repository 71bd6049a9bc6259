"""Probability of coronary calcium from a chest radiograph: one or two views, a model, clinical factors.

Probabilities from a model's logits are logistic, from the image alone and with age, sex and body mass index. The
model's card holds their coefficients under `calibration`: for each threshold T `image_T` = {offset, logit} and
`factors_T` = {offset, logit, age_years, male, bmi_kg_m2}, or None if the training patients lacked these. Fitted by
`CACTrainingLib.radiograph.fitting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import ndimage

from ..core.ct import ScanWarning
from ..core.errors import CTError, ModelError
from ..core.progress import Progress
from ..models.cards import LoadedModel, ModelCard, StoredModel, find_model, list_models
from ..models.inference import predict
from ..networks.configs import RADIOGRAPH, STANDARD_MM
from ..record.provenance import Provenance
from .view import STANDARD_PIXELS, ChestRadiograph, enhance, looks_inverted

if TYPE_CHECKING:
    from ..networks.radiograph import RadiographNet


_PATIENTS = {
    "external_": "patients of another cohort, none of them in training",
    "cross_validated_": "patients, each evaluated by a model that was not trained on them (cross-validation)",
    "": "patients who were also used for early stopping and calibration, which favours the model",
}
"""Patients of a measure, by prefix of its name on the card; the first on the card counts."""


GUESSING, MIN_AREA = 0.5, 0.6
"""Area under the ROC curve of guessing, and that from which the picture alone is said to tell a threshold."""

FACTORS = ("age_years", "male", "bmi_kg_m2")
"""Columns of clinical factors; male is 1 for men, 0 for women."""

_IMAGE, _FACTORS = "image_", "factors_"

Calibration = Mapping[str, Mapping[str, float] | None]
"""Coefficients by key: `image_key` of each threshold, and `factors_key`, None without a fit."""


@dataclass(frozen=True)
class CardArea:
    """Area under the ROC curve on a model's card.

    Attributes:
        value: Area.
        low: Lower limit of the 95% interval, or None.
        high: Upper limit of the 95% interval, or None.
        patients: Description of the patients.
    """

    value: float
    low: float | None
    high: float | None
    patients: str


def area_of(card: ModelCard, agatston: float, with_factors: bool = False) -> CardArea | None:
    """Return a threshold's area under the ROC curve on the card's patients most independent of training."""
    validation = card.validation
    name = f"with_factors_{_area_name(agatston)}" if with_factors else _area_name(agatston)
    for prefix, patients in _PATIENTS.items():
        value, interval = validation.get(f"{prefix}{name}"), validation.get(f"{prefix}{name}_95")
        if isinstance(value, int | float):
            low, high = interval if isinstance(interval, list) and len(interval) == 2 else (None, None)
            count = validation.get(f"{prefix}n")
            return CardArea(float(value), low, high, patients if count is None else f"{count} {patients}")
    return None


def can_tell(card: ModelCard, agatston: float) -> bool:
    """Return True if a threshold can be told from the picture alone, as far as the card knows.

    It cannot where the model's tests have an area below MIN_AREA or not above chance.
    """
    area = area_of(card, agatston)
    return area is None or (area.value >= MIN_AREA and (area.low is None or area.low > GUESSING))


def proportion_of(card: ModelCard, agatston: float) -> float | None:
    """Return the fraction of a model's calibration patients with such a score; None if unknown."""
    counts = card.validation.get(f"n_{_area_name(agatston)}")
    if not isinstance(counts, list) or len(counts) != 2 or not sum(counts):
        return None
    return counts[0] / sum(counts)


def _area_name(agatston: float) -> str:
    """Return the name of a threshold's area on a card."""
    return "auc_above_0" if agatston == 0 else f"auc_from_{agatston:g}"


def threshold_name(agatston: float) -> str:
    """Return the name of a threshold: "above 0", "100 or more"."""
    return "above 0" if agatston == 0 else f"{agatston:g} or more"


def image_warning(card: ModelCard) -> tuple[ScanWarning, ...]:
    """Say for which thresholds nothing is stated from the picture alone."""
    unproven = [float(t) for t in card.config["thresholds"] if not can_tell(card, float(t))]
    if not unproven:
        return ()
    areas = {threshold_name(threshold): area_of(card, threshold) for threshold in unproven}
    texts = [
        name if area is None or area.low is None else f"{name}: AUC {area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
        for name, area in areas.items()
    ]
    message = (
        f"The image alone cannot tell these scores, because {card.name} hardly did better than chance in tests: "
        f"{'; '.join(texts)}. Probabilities with age, sex and body mass index rest on these."
    )
    return (ScanWarning("image-not-proven", message),)


def place_evidence(
    network: RadiographNet, odds: np.ndarray | None, centres: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Return the located evidence of calcium as probability on each pixel of the views, float32 [views, 864, 864].

    odds: Log odds of a network's squares [views, amounts, rows, columns]; None for a network that locates nothing.
    """
    maps = np.zeros((len(centres), STANDARD_PIXELS, STANDARD_PIXELS), np.float32)
    if odds is None:
        return maps
    size = network.config.size
    for view, square, (row, column) in zip(maps, odds[:, 0], centres, strict=True):
        fine = ndimage.zoom(1 / (1 + np.exp(-square)), size / square.shape[0], order=1, mode="nearest", grid_mode=True)
        first_row, first_column = int(np.floor(row)) + 1 - size // 2, int(np.floor(column)) + 1 - size // 2
        part = view[max(first_row, 0) : max(first_row + size, 0), max(first_column, 0) : max(first_column + size, 0)]
        part[:] = fine[max(-first_row, 0) :, max(-first_column, 0) :][: part.shape[0], : part.shape[1]]
    return maps


AGES, BMIS = (18.0, 110.0), (10.0, 80.0)
"""Ranges of an adult's age in years and body mass index in kg/m²."""

HEART_WITHIN_MM = {"PA": (90.0, 70.0), "lateral": (90.0, 100.0)}
"""Largest distance in mm of the heart from the middle of a radiograph of the complete chest, vertical and horizontal.
Digital patients' hearts stay within about two thirds of it."""

DIGITAL = ScanWarning(
    "digital-patients",
    "The model was trained on radiographs of digital patients. No real radiograph with known calcium was available "
    "for training or testing, so its accuracy on this one is unknown.",
)


@dataclass(frozen=True)
class Factors:
    """Clinical factors of a person. sex: "F" or "M". Raises CTError for no adult."""

    age_years: float
    sex: str
    bmi_kg_m2: float

    def __post_init__(self) -> None:
        if self.sex not in ("F", "M"):
            raise CTError(f"The sex is {self.sex!r}. Give F or M.")
        for name, value, (low, high) in (("age", self.age_years, AGES), ("body mass index", self.bmi_kg_m2, BMIS)):
            if not low <= value <= high:
                raise CTError(f"The {name} is {value:g}. Give one from {low:g} to {high:g}.")

    def row(self) -> np.ndarray:
        """Return FACTORS [1, 3]: age, sex (1 for men), body mass index."""
        return np.array([[self.age_years, float(self.sex == "M"), self.bmi_kg_m2]])


@dataclass(frozen=True)
class ThresholdResult:
    """Probabilities of a score from a threshold.

    Attributes:
        agatston: Threshold; 0 stands for above 0.
        image: Probability by the radiograph alone, 0 to 1; None if the model's views cannot tell.
        with_factors: Probability by radiograph and factors, or None.
    """

    agatston: float
    image: float | None
    with_factors: float | None


@dataclass(frozen=True)
class ViewResult:
    """Result of one view.

    Attributes:
        radiograph: Radiograph of the view.
        standard: View before enhancement, float32 [864, 864], 0 to 1.
        heart_centre: Centre (row, column) of the heart in the standard view.
        evidence: Probability of calcium as the network locates it, float32 [864, 864]; 0 if it locates none.
    """

    radiograph: ChestRadiograph
    standard: np.ndarray
    heart_centre: tuple[float, float]
    evidence: np.ndarray


@dataclass(frozen=True)
class RadiographResult:
    """Result of scoring radiographs.

    Attributes:
        views: Results by view, in the model's order.
        thresholds: Results of rising thresholds.
        factors: Factors used, or None.
        card: Card of the model.
        field_mm: Side of the square around the heart.
        warnings: Warnings, those of the radiographs included.
        provenance: Origin of the result; None if it was not written.
    """

    views: dict[str, ViewResult]
    thresholds: tuple[ThresholdResult, ...]
    factors: Factors | None
    card: ModelCard
    field_mm: float
    warnings: tuple[ScanWarning, ...]
    provenance: Provenance | None = None


def model_for(views: set[str], name: str | None = None) -> StoredModel:
    """Return the model of a name, or the installed one for most of the views. Raises ModelError."""
    if name is not None:
        return find_model(RADIOGRAPH, name)
    models = list_models(RADIOGRAPH)
    if not models:
        raise ModelError(
            "No model for radiographs comes with CAC, and none is installed. Train one (cac train radiograph) and "
            "install it (cac models install)."
        )
    fitting = [model for model in models if views.issuperset(model.card.config["views"])]
    most = max((len(model.card.config["views"]) for model in fitting), default=0)
    fitting = [model for model in fitting if len(model.card.config["views"]) == most]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{model.card.name} ({' and '.join(model.card.config['views'])})" for model in models)
    raise ModelError(
        f"{len(fitting)} installed models read {' and '.join(sorted(views))}. Name one with --model, or give its views "
        f"(setting radiograph.lateral); installed: {listed}."
    )


def score_radiograph(
    radiographs: Mapping[str, ChestRadiograph],
    factors: Factors | None,
    model: LoadedModel,
    progress: Progress | None = None,
) -> RadiographResult:
    """Compute the probability that the Agatston score is above each of the model's thresholds.

    Args:
        radiographs: Radiographs by view, "PA" or "lateral".
        factors: Clinical factors; None if some are unknown.
        model: Loaded model.
        progress: Reports the step "scoring".

    Raises:
        CTError: A view is missing or wrong, a picture is unusable, or the device fails.
    """
    progress = progress or Progress()
    card, network = model.card, cast("RadiographNet", model.network)
    names, field = tuple(card.config["views"]), float(network.config.field_mm)
    _check_views(radiographs, names, card.name)
    warnings = [warning for name in radiographs for warning in _named_warnings(radiographs, name)]
    with progress.step("scoring"):
        standard = {name: radiographs[name].standard() for name in names}
        inputs = np.stack([enhance(view, card.config["enhancement"]) for view in standard.values()])
        logits, notes = predict(network, inputs[None], 1)
        centres, odds = _located(network, inputs)
        maps = place_evidence(network, odds, centres)
    by_image = make_nonincreasing(probabilities(logits, None, card.calibration))[0]
    with_factors = None
    if factors is not None:
        fused = probabilities(logits, factors.row(), card.calibration)
        if np.isnan(fused).any():
            message = f"{card.name} was trained without age, sex and body mass index; they were left out."
            warnings.append(ScanWarning("factors-unused", message))
        else:
            with_factors = make_nonincreasing(fused)[0]
    warnings += (*notes, *image_warning(card))
    for name, centre in zip(names, centres, strict=True):
        warnings += _place_warnings(name, centre, standard[name], field)
    if unused := " and ".join(name for name in radiographs if name not in names):
        message = f"{card.name} does not use the {unused} radiograph; it was left out."
        warnings.append(ScanWarning("view-unused", message))
    if "digital" in card.training.data.lower():
        warnings.insert(0, DIGITAL)
    thresholds = tuple(
        ThresholdResult(
            float(t),
            float(by_image[n]) if can_tell(card, float(t)) else None,
            None if with_factors is None else float(with_factors[n]),
        )
        for n, t in enumerate(card.config["thresholds"])
    )
    views = {
        name: ViewResult(radiographs[name], standard[name], centre, maps[n])
        for n, (name, centre) in enumerate(zip(names, centres, strict=True))
    }
    used = factors if with_factors is not None else None
    return RadiographResult(views, thresholds, used, card, field, tuple(dict.fromkeys(warnings)))


def make_nonincreasing(probabilities: np.ndarray) -> np.ndarray:
    """Return the nearest probabilities [n, thresholds] by least squares that never rise with the threshold.

    A score of 400 or more implies one of 100 or more, but thresholds are calibrated separately. Uses
    scipy.optimize.isotonic_regression (pool adjacent violators).
    """
    from scipy.optimize import isotonic_regression

    return np.stack([isotonic_regression(row, increasing=False).x for row in np.asarray(probabilities, float)])


def _check_views(radiographs: Mapping[str, ChestRadiograph], names: tuple[str, ...], model: str) -> None:
    """Raise CTError if a view is missing, or a radiograph was given as another view."""
    if missing := [name for name in names if name not in radiographs]:
        raise CTError(f"{model} needs a {' and a '.join(missing)} radiograph too, or choose another --model.")
    for name, radiograph in radiographs.items():
        view = "lateral" if radiograph.view == "lateral" else "PA"
        if radiograph.view is not None and view != name:
            file = radiograph.source.name if radiograph.source else "The picture"
            raise CTError(f"{file} is a {radiograph.view} radiograph by its header, but was given as {name}.")


def _named_warnings(radiographs: Mapping[str, ChestRadiograph], name: str) -> tuple[ScanWarning, ...]:
    """Return a radiograph's warnings, with the view's name if there are several."""
    radiograph = radiographs[name]
    warnings = radiograph.warnings
    if looks_inverted(radiograph.standard(), name == "lateral"):
        message = "The image looks inverted, with bright lungs and dark bone. Invert it and score it again."
        warnings += (ScanWarning("looks-inverted", message),)
    if len(radiographs) == 1:
        return warnings
    return tuple(replace(warning, message=f"{name}: {warning.message}") for warning in warnings)


def _located(network: RadiographNet, inputs: np.ndarray) -> tuple[list[tuple[float, float]], np.ndarray | None]:
    """Return the centres of the hearts, and the log odds of calcium in the squares about them."""
    import torch

    with torch.inference_mode():
        x = torch.from_numpy(inputs[None]).to(next(network.parameters()))
        centres = network.locate(x)
        _, odds = network(network.crop(x, centres), crops=True, evidence=True)
    places = [(float(row), float(column)) for row, column in centres[0].float().cpu().numpy()]
    return places, None if odds is None else odds[0].cpu().numpy()


def _place_warnings(name: str, centre: tuple[float, float], view: np.ndarray, field_mm: float) -> list[ScanWarning]:
    """Warn of an implausible position of the heart, or of a square around it that leaves the picture."""
    middle = [(n - 1) / 2 for n in view.shape]
    offsets = [abs(place - half) * STANDARD_MM for place, half in zip(centre, middle, strict=True)]
    if any(distance > most for distance, most in zip(offsets, HEART_WITHIN_MM[name], strict=True)):
        message = (
            f"On the {name} radiograph the heart was found {offsets[0]:.0f} mm above or below, {offsets[1]:.0f} mm "
            "beside the centre, which is implausible. Check the image; do not rely on the probabilities."
        )
        return [ScanWarning("heart-place", message)]
    half = field_mm / 2 / STANDARD_MM
    rows, columns = np.flatnonzero(view.any(1)), np.flatnonzero(view.any(0))
    filled = rows.size and columns.size
    inside = filled and all(
        edge[0] <= place - half * 0.75 and place + half * 0.75 <= edge[-1]
        for edge, place in zip((rows, columns), centre, strict=True)
    )
    if inside:
        return []
    message = f"On the {name} radiograph the square around the heart is cut off: part of it may be missing."
    return [ScanWarning("heart-cut-off", message)]


def probabilities(logits: np.ndarray, factors: np.ndarray | None, calibration: Calibration) -> np.ndarray:
    """Return calibrated probabilities that scores exceed thresholds, float64 [N, T].

    logits: Output of the model, [N, T].
    factors: FACTORS of each patient, [N, 3]; None for the image alone. The probability is NaN where a factor is NaN or
        the card has no fit with factors.

    Raises ValueError if the calibration is not for T thresholds.
    """
    logits = np.asarray(logits, float)
    thresholds = sorted(float(name.removeprefix(_IMAGE)) for name in calibration if name.startswith(_IMAGE))
    if logits.ndim != 2 or len(thresholds) != logits.shape[1]:
        raise ValueError(f"{len(thresholds)} thresholds are calibrated; the logits' shape is {logits.shape}.")
    result = np.empty(logits.shape)
    for number, threshold in enumerate(thresholds):
        fit = calibration[image_key(threshold)] if factors is None else calibration.get(factors_key(threshold))
        if fit is None:
            z = np.full(len(logits), np.nan)
        else:
            z = fit["offset"] + fit["logit"] * logits[:, number]
            if factors is not None:
                z = z + np.asarray(factors, float) @ np.array([fit[name] for name in FACTORS])
        result[:, number] = 1 / (1 + np.exp(-np.clip(z, -50, 50)))
    return result


def image_key(threshold: float) -> str:
    """Key of a threshold's calibration from the image alone."""
    return f"{_IMAGE}{threshold:g}"


def factors_key(threshold: float) -> str:
    """Key of a threshold's calibration with clinical factors."""
    return f"{_FACTORS}{threshold:g}"
