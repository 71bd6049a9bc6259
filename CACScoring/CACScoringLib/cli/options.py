"""Options that several commands of scoring share, and what is made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.output import OutputError

if TYPE_CHECKING:
    from ..run import ModelChoice

SERIES_HELP = (
    "DICOM series to read where the folder holds several: its number or UID; several series with one number, or "
    "cardiac phases of one series, are 3.1, 3.2, … as listed when this option is left out"
)


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add --progress, which `main.run` needs of every command."""
    parser.add_argument("--progress", choices=("auto", "json", "none"), default="auto", help="how to report progress")


def add_unusual_argument(parser: argparse.ArgumentParser) -> None:
    """Add --allow-unusual."""
    parser.add_argument(
        "--allow-unusual",
        action="store_true",
        help="score a contrast-enhanced scan, or one whose anatomy contradicts the orientation in its header, as in "
        "dextrocardia, with a warning instead of refusing it",
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


def extras_of_dicom(dicom: bool, lesions: Path | None = None) -> tuple[str, ...]:
    """The extra that DICOM results, and lesions that may be DICOM, need."""
    from ..io.dicom import is_dicom

    return ("dicom",) if dicom or (lesions is not None and lesions.is_file() and is_dicom(lesions)) else ()


def extras_of_estimates(options: argparse.Namespace) -> tuple[str, ...]:
    """The extras that the whole-scan estimates asked for need."""
    from ..models.cards import list_models
    from ..whole_scan.estimates import RADIOMICS

    asked = (options.whole_scan or "").split(",")
    return ("radiomics",) if RADIOMICS in asked or (asked == ["all"] and list_models(RADIOMICS)) else ()


def model_choice(options: argparse.Namespace) -> ModelChoice:
    """The networks and whole-scan estimates asked for. Raises OutputError, ModelError."""
    from ..run import ModelChoice

    estimates: tuple[str, ...] = ()
    if (kinds := getattr(options, "whole_scan", None)) is not None:
        from ..whole_scan.run import requested_estimators

        estimates = requested_estimators(kinds)
        if options.threshold_only:
            raise OutputError("--threshold-only uses no network, but --whole-scan needs one. Leave one of them out.")
    return ModelChoice(tuple(options.model), options.threshold_only, options.device, estimates)
