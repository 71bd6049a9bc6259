"""Commands declared by a dataclass or a function, options that several share, and their conversion to settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.errors import CTError, OutputError
from ..core.files import parse_json, read_json
from ..core.options import (
    Settings,
    add_options,
    argument,
    as_help,
    changed_settings,
    description_of,
    option,
    options_from,
    options_of,
    settings_from,
)

if TYPE_CHECKING:
    from ..core.progress import Progress
    from ..models.choice import ModelChoice
    from ..run import RunSettings

RESUME = "Interrupted. Rerun the command to resume."
NOTHING_WRITTEN = "Interrupted. Nothing was written."

SERIES = (
    "series of a DICOM folder that holds several, by number or UID; 3.1, 3.2, … for series that share a number, and "
    "for the cardiac phases and acquisitions of one (default: the one nearest to the scoring protocol; cac info lists "
    "them); all joins the series into which one scan was parted"
)
"""Help of --series."""

SECTIONS = ("scoring", "results", "scan", "radiograph", "study")
"""One file serves all commands that score: each reads those sections that it knows."""


DEVICES = ("auto", "cpu", "cuda")

LOCAL = "local"
"""The value of --cluster for processes of this computer."""


Options = TypeVar("Options")


@dataclass(frozen=True)
class Command(Generic[Options]):
    """A command, or an action of one.

    Attributes:
        options: Dataclass of its options; the docstring describes the command and its options.
        run: Function of the options and the progress.
        extras: Extras that it needs beside the base, or a function of the options that returns them.
        interrupted: Text when it is stopped.
    """

    options: type[Options]
    run: Callable[[Options, Progress], object]
    extras: tuple[str, ...] | Callable[[Options], tuple[str, ...]] = ()
    interrupted: str = RESUME

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options.

        Parsed arguments have `run`, a function of themselves and the progress, `extras`, a function of themselves, and
        `interrupted`.
        """
        parser.description = description_of(self.options)
        add_options(parser, self.options)
        parser.set_defaults(run=self._run, extras=self._extras, interrupted=self.interrupted)

    def _run(self, arguments: argparse.Namespace, progress: Progress) -> None:
        self.run(options_from(arguments, self.options), progress)

    def _extras(self, arguments: argparse.Namespace) -> tuple[str, ...]:
        return self.extras(options_from(arguments, self.options)) if callable(self.extras) else self.extras


def command(function: Callable[..., object], extras: tuple[str, ...] = (), interrupted: str = RESUME) -> Command[Any]:
    """Return the command of a function whose parameters are its options, and `progress`.

    Args:
        function: Function with a docstring that describes them.
        extras: As in `Command`.
        interrupted: As in `Command`.
    """

    def run(options: Any, progress: Progress) -> None:
        function(**vars(options), progress=progress)

    return Command(options_of(function), run, extras, interrupted)


def declare_actions(
    parser: argparse.ArgumentParser, actions: Mapping[str, Command[Any]], description: str | None = None
) -> None:
    """Declare a command that consists of actions, by name. The help of each is its description's first sentence."""
    parser.description = description
    subparsers = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in actions.items():
        text = description_of(action.options).partition(". ")[0]
        action.declare(subparsers.add_parser(name, help=as_help(text)))


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """Add --progress, which `main.run` needs of every command, and --quiet."""
    parser.add_argument(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="how to report progress; none prints errors and severe warnings only",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_const", dest="progress", const="none", help="the same as --progress none"
    )


def settings_option(example: str = '{"results": {"healthy": true}}') -> Any:
    """Declare --settings, read by `from_file`."""
    text = f"rarely changed settings, as a JSON file or as JSON, such as {example}; docs/user/settings.md lists all; "
    return option((), f"{text}may be repeated", metavar="FILE|JSON")


def cluster_option(work: str) -> Any:
    """Declare --cluster. work: Verb phrase of the workers' task for the help."""
    text = (
        f"workers that {work}: local (default: processes of this computer), tcp://HOST:PORT of a Dask scheduler, or a "
    )
    return option(LOCAL, f"{text}batch system such as slurm, as configured for Dask", metavar="CLUSTER")


@dataclass(frozen=True, kw_only=True)
class UnusualOptions:
    """Options for scans that are refused otherwise.

    Attributes:
        kvp: Tube voltage, if the file does not state it.
        allow_unusual: Score a contrast-enhanced scan, or one whose anatomy contradicts its header (as in dextrocardia),
            with a warning instead of refusing it.
    """

    kvp: float | None = option(None, metavar="KV")
    allow_unusual: bool = False


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """Options of results for other programs.

    Attributes:
        dicom: Also write DICOM objects (SEG, SR) for the CT's patient and study; needs a DICOM series.
        reader: Who reviewed the given lesions; without a reader their score is no reviewed one.
    """

    dicom: bool = False
    reader: str | None = option(None, metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options that select networks.

    Attributes:
        model: Model, or its card NAME.json, to use in place of the bundled one for territories, heart, slices or
            decomposition (see cac models list); may be repeated.
        threshold_only: Score by the clinical rule alone, without networks.
        device: Device of the networks (default: auto, the GPU if available).
    """

    model: tuple[str, ...] = option((), group="networks", exclusive="optional", metavar="NAME")
    threshold_only: bool = option(False, group="networks", exclusive="optional")
    device: str = option("auto", group="networks", choices=DEVICES)


@dataclass(frozen=True, kw_only=True)
class EstimateOptions(NetworkOptions):
    """Options that select networks and whole-scan estimates.

    Attributes:
        whole_scan: Add whole-scan estimates: vessels, radiomics, or both separated by a comma (default: all that have a
            model); --model selects these models too.
    """

    whole_scan: str | None = option(None, group="networks", nargs="?", const="all", metavar="KINDS")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ExchangeOptions, UnusualOptions, EstimateOptions):
    """Score one CT, or estimate the probability of coronary calcium from a chest radiograph (--radiograph).

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA; or a result, to score it again by --lesions without
            the CT.
        output: Folder for the results (default: the CT's name followed by -cac).
        overwrite: Replace results that are already in the folder.
        heart: Heart mask to use in place of the segmented heart.
        pericardium: Mask of all within the pericardium, to measure its fat.
        lesions: Lesions: a DICOM segmentation or structure set whose segments are coded or named by artery, or labels:
            1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other; outside the arteries 8 aortic valve, 9 mitral annulus, 10 thoracic
            aorta, 11 other.
        arteries_by_territory: Assign the lesions of --lesions to arteries by the network's territories, as those of a
            map of all calcium; the result says so.
        earlier: Result of an earlier scan of the patient to compare with.
        different_patients: Compare with an earlier scan although the headers state different patients, as after
            de-identification; the result says so.
        scene: Write scene.mrb for 3D Slicer.
        json: Print the totals of scores.json for programs, with its keys.
        radiograph: PA radiograph to score instead of a CT: DICOM (CR, DX), a grey PNG, JPEG or TIFF with bright bone,
            or a NIfTI, NRRD or MHA file of cac drr; --model selects the radiograph model, --settings add a lateral
            view, age, sex and body mass index.
    """

    ct: Path | None = argument(None, metavar="CT")
    output: Path | None = option(None, metavar="DIR")
    overwrite: bool = False
    series: str | None = option(None, SERIES, metavar="NUMBER|UID")
    heart: Path | None = option(None, metavar="MASK")
    pericardium: Path | None = option(None, metavar="MASK")
    lesions: Path | None = option(None, metavar="LABELS")
    arteries_by_territory: bool = False
    earlier: Path | None = option(None, metavar="RESULT")
    different_patients: bool = False
    scene: bool = False
    json: bool = False
    settings: tuple[str, ...] = settings_option(
        '{"scoring": {"rules": {"minimum_pixels": 3}}, "results": {"identify": true}}'
    )
    radiograph: Path | None = option(None, metavar="IMAGE")


def confirms(question: str) -> bool:
    """Ask a person at the terminal; True for yes."""
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def extras_of_dicom(dicom: bool, lesions: Path | None = None) -> tuple[str, ...]:
    """Return the extra that DICOM results or DICOM lesions need."""
    from ..io.dicom import is_dicom

    return ("dicom",) if dicom or (lesions is not None and lesions.is_file() and is_dicom(lesions)) else ()


def extras_of_networks(options: EstimateOptions) -> tuple[str, ...]:
    """Return the extras that a GPU and the requested whole-scan estimates need."""
    from ..models.choice import requested_estimates
    from ..networks.configs import ROLES

    estimates: tuple[str, ...] = ()
    with suppress(CTError):  # which the command reports
        estimates = requested_estimates(model_choice(options))
    extras = [extra for network in estimates for extra in ROLES[network].extras]
    return tuple(dict.fromkeys([*(("torch",) if options.device == "cuda" else ()), *extras]))


def model_choice(options: NetworkOptions) -> ModelChoice:
    """Return the requested networks and whole-scan estimates. Raises OutputError, ModelError."""
    from ..models.choice import ModelChoice

    estimates: tuple[str, ...] = ()
    if (kinds := getattr(options, "whole_scan", None)) is not None:
        from ..models.choice import requested_estimators

        estimates = requested_estimators(kinds)
        if options.threshold_only:
            raise OutputError("--threshold-only uses no network, but --whole-scan needs one. Leave one of them out.")
    return ModelChoice(options.model, options.threshold_only, options.device, estimates)


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


def scoring_settings(options: Any, standard: RunSettings) -> RunSettings:
    """Read the sections "scoring" and "results" of --settings and the options that set the same. Raises OutputError."""
    settings = from_file(options.settings, "results", standard)
    score = from_file(options.settings, "scoring", settings.score)
    if getattr(options, "allow_unusual", False):
        score = replace(score, allow_contrast=True, allow_reversed=True)
    if getattr(options, "arteries_by_territory", False):
        score = replace(score, arteries_by_territory=True)
    switched: dict[str, Any] = {n: True for n in ("identify", "scene", "dicom") if getattr(options, n, False)}
    settings = replace(settings, score=settings_from(options, score, ("kvp",)), **switched)
    return settings_from(options, settings, ("reader",))


def extras_of_cluster(options: object) -> tuple[str, ...]:
    """Return the extras that --cluster needs. Raises CTError."""
    if (cluster := getattr(options, "cluster", None)) in (None, LOCAL):
        return ()
    from ..cohort.workers import BATCH_SYSTEMS, check_cluster

    check_cluster(cluster)
    return ("cluster",) if cluster in BATCH_SYSTEMS else ()


def on_cluster(options: object) -> AbstractContextManager[None]:
    """Distribute work to the cluster of --cluster within this context. Raises CTError."""
    if (cluster := getattr(options, "cluster", None)) in (None, LOCAL):
        return nullcontext()
    from ..cohort.workers import working_on

    return working_on(cluster)
