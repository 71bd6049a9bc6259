"""Options that several commands of scoring share, and what is made of them."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.output import OutputError

if TYPE_CHECKING:
    from ..run import ModelChoice
    from ..scoring.lesions import ScoringRules

SERIES_HELP = (
    "DICOM series to read where the folder holds several: its number or UID; several series with one number, or "
    "cardiac phases of one series, are 3.1, 3.2, … as listed when this option is left out"
)


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add --progress, which `main.run` needs of every command."""
    parser.add_argument("--progress", choices=("auto", "json", "none"), default="auto", help="how to report progress")


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is said of every CT that is scored."""
    parser.add_argument(
        "--allow-contrast",
        action="store_true",
        help="score a contrast-enhanced scan with a warning instead of refusing it",
    )
    parser.add_argument(
        "--allow-reversed",
        action="store_true",
        help="score a scan whose anatomy contradicts the orientation in its header with a warning instead of refusing "
        "it, as in dextrocardia",
    )
    parser.add_argument(
        "--normalisation",
        choices=("auto", "on", "off"),
        default="auto",
        help="bring the scan to a soft kernel and slices of 3 mm before it is scored (default: auto, where its kernel "
        "is sharper, or its slices are thinner, than those that CAC knows)",
    )
    parser.add_argument(
        "--identify", action="store_true", help="include patient name, id and study date in the results"
    )


def add_dicom_argument(parser: argparse.ArgumentParser) -> None:
    """Add --dicom."""
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also write the results as DICOM objects (SEG, SR, PDF, key slices) of the CT's patient and study; the CT "
        "has to be a DICOM series",
    )


def add_network_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add how to choose networks; returns their group."""
    networks = parser.add_argument_group("without a threshold")
    which = networks.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="model to use instead of the bundled one for territories, slices or decomposition, or to find the heart "
        "instead of the one for territories (see cac models list); may be repeated",
    )
    which.add_argument(
        "--threshold-only", action="store_true", help="score by the clinical rule alone, without networks"
    )
    networks.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the networks run (default: auto, a GPU if there is one)",
    )
    return networks


def add_estimate_argument(networks: argparse._ArgumentGroup) -> None:
    """Add --whole-scan to the networks' group."""
    networks.add_argument(
        "--whole-scan",
        nargs="?",
        const="all",
        metavar="KINDS",
        help="also give whole-scan estimates by models that evaluate the scan as a whole: vessels, radiomics, or both "
        "separated by a comma; without KINDS, every estimate for which there is a model. --model selects these "
        "models too",
    )


def extras_of_dicom(options: argparse.Namespace) -> tuple[str, ...]:
    """The extra that DICOM results, and lesions that may be DICOM, need."""
    return ("dicom",) if options.dicom or _is_dicom_file(getattr(options, "lesions", None)) else ()


def _is_dicom_file(path: Path | None) -> bool:
    from ..io.dicom import is_dicom

    return path is not None and path.is_file() and is_dicom(path)


def extras_of_estimates(options: argparse.Namespace) -> tuple[str, ...]:
    """The extras that the whole-scan estimates asked for need."""
    from ..models.cards import list_models
    from ..whole_scan.estimates import RADIOMICS

    asked = (options.whole_scan or "").split(",")
    return ("radiomics",) if RADIOMICS in asked or (asked == ["all"] and list_models(RADIOMICS)) else ()


def add_rule_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add how to change the clinical rule; returns the ways to calibrate mass, of which one is taken."""
    rules = parser.add_argument_group("rules")
    names = ", ".join(_kinds_of_rules())
    rules.add_argument(
        "--rule",
        action="append",
        default=[],
        type=_rule,
        metavar="NAME=VALUE",
        help=f"change a scoring rule (may be repeated): {names}",
    )
    rules.add_argument(
        "--adapt-to-tube-voltage",
        action="store_true",
        help="use the thresholds published for the scan's tube voltage instead of those for 120 kVp",
    )
    rules.add_argument(
        "--candidates",
        action="store_true",
        help="list all candidates of the clinical rule, and leave none out by the networks' evidence",
    )
    mass = rules.add_mutually_exclusive_group()
    mass.add_argument("--calibration", type=float, metavar="C", help="mass calibration factor in mg/(mm³·HU)")
    rules.add_argument(
        "--mass-table",
        type=Path,
        metavar="CSV",
        help="mass calibrations of your scanners, for scans that state none: columns kvp and mg_per_cm3_per_hu, and "
        "manufacturer, width_from_cm, width_to_cm, uncertainty_percent where wanted",
    )
    return mass


def _kinds_of_rules() -> dict[str, type]:
    from ..scoring.lesions import ScoringRules

    return {f.name: type(f.default) for f in fields(ScoringRules) if isinstance(f.default, int | float)}


def _rule(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    kinds = _kinds_of_rules()
    if name not in kinds:
        raise argparse.ArgumentTypeError(f"{name!r} is not a rule; the rules are {', '.join(kinds)}")
    try:
        return name, kinds[name](value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} needs a number, not {value!r}") from None


def model_choice(options: argparse.Namespace) -> ModelChoice:
    """The networks and whole-scan estimates asked for. Raises OutputError, ModelError."""
    from ..run import ModelChoice

    estimates = ()
    if options.whole_scan is not None:
        from ..whole_scan.run import requested_estimators

        estimates = requested_estimators(options.whole_scan)
        if options.threshold_only:
            raise OutputError("--threshold-only uses no network, but --whole-scan needs one. Leave one of them out.")
    return ModelChoice(tuple(options.model), options.threshold_only, options.device, estimates)


def rules(options: argparse.Namespace) -> ScoringRules:
    """The rules asked for, with the calibration that was given as a number."""
    from ..scoring.lesions import ScoringRules

    changed, standard = dict(options.rule), ScoringRules()
    name = standard.name
    if changed:
        name = f"{name}, changed: {', '.join(f'{key} = {value:g}' for key, value in changed.items())}"
    return replace(standard, name=name, calibration_mg_per_mm3_hu=options.calibration, **changed)
