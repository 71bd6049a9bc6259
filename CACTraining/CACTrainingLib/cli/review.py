"""`cac review`: serve a page on which readers review scored scans."""

from __future__ import annotations

import getpass
import ipaddress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from CACScoringLib.cli.options import Command, extras_of_dicom, from_file, settings_option
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import REVIEW_PORT
from CACScoringLib.core.options import argument, option

if TYPE_CHECKING:
    from CACScoringLib.core.progress import Progress
    from CACScoringLib.readings.work_list import WorkList

    from ..browser.server import ServerSettings


@dataclass(frozen=True)
class ReviewOptions:
    """Serve a page on which readers review scored scans in the browser, reachable from this computer only unless
    --settings states otherwise.

    Stop it with Ctrl+C. Every change is kept in the folder reviews of each result.

    Attributes:
        results: Folder of cac score or cac cohort, or a training project whose scans cac cohort has scored into its
            folder results.
        ct: CT of a result of cac score.
        series: Scored series of the DICOM folder --ct.
        reader: Name of a reader; may be repeated, each gets an address (default: your user name).
        double: Every reader reads every scan alone; the page lists their agreement and opens a consensus.
        blind: Hide names and automatic scores until a scan is read.
        project: Training project to which reviews can be added as annotations (default: RESULTS, if it is one).
        dicom: Also export reviews of DICOM series as DICOM objects (SEG, SR).
        repeat: With --double: read in a random order by a plan (reading_plan.csv, made on the first start), in which
            each reader reads this proportion of the scans again at the end.
        washout: With --repeat: date before which nothing is read again, such as 2027-03-01.
        adjudicator: Who alone decides where readers differ, and reads nothing else.
        check: Proportion of scans, drawn at random, that the work list marks to be checked, whatever their warnings.
        seed: Seed of the plan's order and of --check.
        tables: Serve no page, but write readings and their agreement as tables into this new folder; needs --double.
    """

    results: Path = argument(metavar="RESULTS")
    ct: Path | None = option(None, metavar="CT")
    series: str | None = option(None, metavar="NUMBER|UID")
    reader: tuple[str, ...] = option((), metavar="NAME")
    double: bool = False
    blind: bool = False
    project: Path | None = option(None, metavar="DIR")
    dicom: bool = False
    repeat: float | None = option(None, metavar="PART")
    washout: str = option("", metavar="DATE")
    adjudicator: str = option("", metavar="NAME")
    check: float = option(0.0, metavar="PART")
    seed: int = 0
    tables: Path | None = option(None, metavar="DIR")
    settings: tuple[str, ...] = settings_option('{"port": 8080}')


def _extras(options: ReviewOptions) -> tuple[str, ...]:
    from CACScoringLib.readings.journals import PLAN

    is_double = options.double or (options.results / PLAN).exists()
    return ("review", *(("statistics",) if is_double else ()), *extras_of_dicom(options.dicom))


def _run(options: ReviewOptions, progress: Progress) -> None:
    if options.tables is not None:
        from CACScoringLib.readings.agreement import write_tables

        write_tables(options.tables, serve_arguments(options)[1])
        print(f"Tables: {options.tables}")
        return
    from ..browser.serving import serve

    place = place_of(options)
    serve(*serve_arguments(options), place)


def serve_arguments(options: ReviewOptions) -> tuple[Path, WorkList, Path | None, bool]:
    """Results folder, work list, project and DICOM export for `browser.serving.serve`. Raises CTError, OutputError."""
    from CACScoringLib.readings.cases import refused_scans
    from CACScoringLib.readings.journals import PLAN, root_of
    from CACScoringLib.readings.work_list import WorkList, plan_of

    from ..browser.project import cases_of, results_of
    from ..project.project import is_project

    readers = tuple(dict.fromkeys(options.reader or (_user(),)))
    folder = results_of(options.results)
    root = root_of(folder.resolve())
    is_planned = (root / PLAN).exists()
    if is_planned and root != folder.resolve():
        raise OutputError(f"The readings of {folder} are planned in {root}. Review that folder.")
    is_double = options.double or is_planned  # a plan binds
    if options.double and len(readers) < 2 and options.repeat is None:
        raise OutputError("Double reading needs two readers at least. Name each with --reader.")
    names = (*readers, *filter(None, [options.adjudicator]))
    if options.adjudicator and (options.adjudicator in readers or not is_double):
        raise OutputError("An adjudicator decides between readers who each read alone, and is none of them.")
    if any(not name.isprintable() or not 1 <= len(name.strip()) <= 40 or name != name.strip() for name in names):
        raise OutputError("A reader's name has 1 to 40 characters that can be shown, and no space at its ends.")
    if not is_double and (options.repeat is not None or options.tables is not None):
        raise OutputError("--repeat and --tables are for readers who each read alone. Add --double.")
    if options.series is not None and options.ct is None:
        raise OutputError("--series chooses a series of the folder that --ct names.")
    if not 0 <= options.check <= 1:
        raise OutputError(f"--check is {options.check:g}. Give the proportion of scans to check, from 0 to 1.")
    cases = cases_of(options.results, options.ct, options.series)
    how = options.repeat, options.seed, options.blind, _date(options.washout)
    plan = plan_of(folder, cases, readers, *how) if is_double else []
    is_blind = options.blind or any(reading.is_blind for reading in plan)
    to_check = refused_scans(folder), options.check, options.seed
    work = WorkList(cases, readers, is_double, is_blind, plan, options.adjudicator, *to_check)
    project = options.project or (options.results if is_project(options.results) else None)
    return folder, work, project, options.dicom


def _date(text: str) -> str:
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise OutputError(f"--washout is {text!r}, no date such as 2027-03-01.") from None


def _user() -> str:
    try:
        return getpass.getuser()[:40]
    except (OSError, KeyError):  # a user without a name
        return "reader"


def place_of(options: ReviewOptions) -> ServerSettings:
    """Address to listen at. Raises OutputError."""
    from ..browser.server import ServerSettings

    place = from_file(options.settings, None, ServerSettings(port=REVIEW_PORT))
    local = place.host == "localhost"
    if not local:
        try:
            local = ipaddress.ip_address(place.host).is_loopback
        except ValueError:
            raise OutputError(f"{place.host!r} is no IP address. Give one as host in --settings.") from None
    if place.origin is not None:
        parts = urlsplit(place.origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or place.origin != f"{parts[0]}://{parts[1]}":
            raise OutputError("The origin is the address up to the port, such as https://review.example.org.")
    elif not local:
        raise OutputError("Other computers need the server's origin in --settings, such as https://review.example.org.")
    if place.user_header and place.origin is None:
        raise OutputError("user_header is for a reverse proxy. Give its address as origin in --settings.")
    if not 0 <= place.port < 2**16:
        raise OutputError(f"The port is {place.port}; ports go from 0 to 65535.")
    return place


add_arguments = Command(ReviewOptions, _run, _extras, "Stopped. Every change is kept.").declare
