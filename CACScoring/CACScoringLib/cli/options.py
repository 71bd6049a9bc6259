"""Options that several scoring commands share, such as `--settings`, and their conversion to settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import OutputError, parse_json, read_json
from ..core.options import Settings, changed_settings

if TYPE_CHECKING:
    from ..models.choice import ModelChoice
    from ..run import RunSettings

SERIES_HELP = (
    "series of a DICOM folder that holds several, by number or UID; 3.1, 3.2, … for series that share a number and for "
    "cardiac phases (default: the one nearest to the scoring protocol; cac info lists them); all joins the series into "
    "which one scan was parted"
)

SECTIONS = ("scoring", "results", "scan", "radiograph", "access", "series", "watch", "study")
"""One file serves all commands that score or know archives: each reads those sections that it knows."""


LOCAL = "local"
"""The value of --cluster for processes of this computer."""


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add --progress, which `main.run` needs of every command."""
    parser.add_argument(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="how to report progress; none prints errors and severe warnings only",
    )


def add_unusual_argument(parser: argparse.ArgumentParser) -> None:
    """Add --allow-unusual and --kvp."""
    parser.add_argument("--kvp", type=float, metavar="KV", help="tube voltage, if the file does not state it")
    parser.add_argument(
        "--allow-unusual",
        action="store_true",
        help="score a contrast-enhanced scan, or one whose anatomy contradicts its header (as in dextrocardia), with a "
        "warning instead of refusing it",
    )


def add_exchange_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --dicom, --fhir and --reader."""
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also write DICOM objects (SEG, SR, PDF, key slices) for the CT's patient and study; needs a DICOM series",
    )
    parser.add_argument(
        "--reader",
        metavar="NAME",
        help="who reviewed the given lesions; without a reader their score is no reviewed one",
    )
    parser.add_argument("--fhir", action="store_true", help="also write the clinical scores as a FHIR R4 bundle")


def add_network_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that select networks; return their group."""
    networks = parser.add_argument_group("networks")
    model_options = networks.add_mutually_exclusive_group()
    model_options.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="model, or its card NAME.json, to use in place of the bundled one for territories, heart, slices or "
        "decomposition (see cac models list); may be repeated",
    )
    model_options.add_argument(
        "--threshold-only", action="store_true", help="score by the clinical rule alone, without networks"
    )
    networks.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device of the networks (default: auto, the GPU if available)",
    )
    return networks


def add_estimate_argument(networks: argparse._ArgumentGroup) -> None:
    """Add --whole-scan to the networks' group."""
    networks.add_argument(
        "--whole-scan",
        nargs="?",
        const="all",
        metavar="KINDS",
        help="add whole-scan estimates: vessels, radiomics, or both separated by a comma (default: all that have a "
        "model); --model selects these models too",
    )


def extras_of_dicom(dicom: bool, lesions: Path | None = None) -> tuple[str, ...]:
    """Return the extra that DICOM results or DICOM lesions need."""
    from ..io.dicom import is_dicom

    return ("dicom",) if dicom or (lesions is not None and lesions.is_file() and is_dicom(lesions)) else ()


def extras_of_networks(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the extras that a GPU and the requested whole-scan estimates need."""
    if options.whole_scan is None:
        return ("torch",) if options.device == "cuda" else ()
    from ..models.cards import list_models
    from ..networks.configs import RADIOMICS

    kinds = options.whole_scan.split(",")
    with_radiomics = RADIOMICS in kinds or (kinds == ["all"] and list_models(RADIOMICS))
    return ("torch", "radiomics") if with_radiomics else ("torch",)


def model_choice(options: argparse.Namespace) -> ModelChoice:
    """Return the requested networks and whole-scan estimates. Raises OutputError, ModelError."""
    from ..models.choice import ModelChoice

    estimates: tuple[str, ...] = ()
    if (kinds := getattr(options, "whole_scan", None)) is not None:
        from ..models.choice import requested_estimators

        estimates = requested_estimators(kinds)
        if options.threshold_only:
            raise OutputError("--threshold-only uses no network, but --whole-scan needs one. Leave one of them out.")
    return ModelChoice(tuple(options.model), options.threshold_only, options.device, estimates)


def add_settings_argument(parser: argparse._ActionsContainer, example: str = '{"results": {"healthy": true}}') -> None:
    """Add --settings."""
    parser.add_argument(
        "--settings",
        action="append",
        default=[],
        metavar="FILE|JSON",
        help=f"rarely changed settings, as a JSON file or as JSON, such as {example}; docs/user/settings.md lists all; "
        "may be repeated",
    )


def from_file(sources: Sequence[str], section: str | None, settings: Settings) -> Settings:
    """Return settings changed by each source in turn, nested settings included.

    Args:
        sources: Values of the option --settings: files or JSON. Paths in a file are relative to it.
        section: One of SECTIONS; None if the sources hold these settings alone.
        settings: Settings to change.

    Raises:
        OutputError: A source cannot be read or has an unknown or invalid setting.
    """
    for source in sources:
        content, folder = read_settings(source)
        if section is None:
            settings = changed_settings(settings, content, "", folder)
            continue
        if not isinstance(content, dict) or not content.keys() <= set(SECTIONS):
            raise OutputError(f"--settings needs an object with sections of {', '.join(SECTIONS)}.")
        settings = changed_settings(settings, content.get(section, {}), section, folder)
    return settings


def read_settings(source: str) -> tuple[object, Path]:
    """Return the content of a JSON file or text, and the folder of its relative paths. Raises OutputError."""
    is_text = source.lstrip().startswith("{")
    try:
        content = parse_json(source) if is_text else read_json(Path(source))
    except (OSError, ValueError) as error:
        raise OutputError(f"--settings {source} cannot be read as JSON ({error}). Correct it.") from error
    return content, Path() if is_text else Path(source).parent


def scoring_settings(options: argparse.Namespace, standard: RunSettings) -> RunSettings:
    """Read the sections "scoring" and "results" of --settings and the options that set the same. Raises OutputError."""
    settings = from_file(options.settings, "results", standard)
    score = from_file(options.settings, "scoring", settings.score)
    if getattr(options, "allow_unusual", False):
        score = replace(score, allow_contrast=True, allow_reversed=True)
    if (kvp := getattr(options, "kvp", None)) is not None:
        score = replace(score, kvp=kvp)
    return replace(
        settings,
        score=score,
        identify=settings.identify or getattr(options, "identify", False),
        scene=settings.scene or getattr(options, "scene", False),
        dicom=settings.dicom or getattr(options, "dicom", False),
        fhir=settings.fhir or getattr(options, "fhir", False),
        reader=getattr(options, "reader", None) or settings.reader,
    )


def add_cluster_argument(parser: argparse.ArgumentParser, work: str) -> None:
    """Add --cluster. work: Verb phrase of the workers' task for the help."""
    parser.add_argument(
        "--cluster",
        default=LOCAL,
        metavar="CLUSTER",
        help=f"workers that {work}: local (default: processes of this computer), tcp://HOST:PORT of a Dask scheduler, "
        "or a batch system such as slurm, as configured for Dask",
    )


def extras_of_cluster(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the extras that --cluster needs. Raises ClusterError."""
    if getattr(options, "cluster", LOCAL) == LOCAL:
        return ()
    from ..cohort.cluster import ClusterChoice

    return ("cluster",) if ClusterChoice(options.cluster).is_of_batch_system else ()


def on_cluster(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Distribute work to the cluster of --cluster within this context. Raises ClusterError."""
    if getattr(options, "cluster", LOCAL) == LOCAL:
        return nullcontext()
    from ..cohort.cluster import ClusterChoice, working_on

    return working_on(ClusterChoice(options.cluster))
