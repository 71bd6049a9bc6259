"""Start and stop the server of a folder of results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import web
from filelock import FileLock, Timeout

from CACScoringLib.core.errors import OutputError
from CACScoringLib.readings.cases import check_present
from CACScoringLib.readings.work_list import WorkList

from ..project.project import Project
from .safety import Gate
from .server import Server, ServerSettings

LOCK = ".review.lock"


def serve(results: Path, work: WorkList, project: Path | None, dicom: bool, settings: ServerSettings) -> None:
    """Serve the review of results until the process is stopped; print the readers' addresses on standard output.

    Arguments and errors are those of `reviewing` and `listening`.
    """
    with reviewing(results, work, project, dicom) as server:
        asyncio.run(_serve(server, settings))


@contextmanager
def reviewing(results: Path, work: WorkList, project: Path | None, dicom: bool) -> Iterator[Server]:
    """Lock the results and yield their server.

    results: Folder of the cases' results. project, dicom: As in `Server`.

    Raises OutputError if another server reviews the results, CTError if all CTs are missing.
    """
    check_present(list(work.cases.values()))
    if project is not None:
        project = Project.open(project).folder
    lock = FileLock(results / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"Another server reviews {results}. Use that one, or stop it first."
        raise OutputError(message) from None
    except OSError as error:
        raise OutputError(f"Reviews cannot be kept in {results}: {error.strerror}. Check its permissions.") from error
    with lock:
        yield Server(work, Gate(work.people), project, dicom)


@asynccontextmanager
async def listening(server: Server, settings: ServerSettings) -> AsyncIterator[str]:
    """Start listening and yield the origin of the server's pages. Raises OutputError if the port is taken."""
    # aiohttp would print a traceback of its parser for a damaged request; the server reports its own errors.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as error:
            raise OutputError(
                f"Port {settings.port} cannot be used ({error.strerror}). Choose another port in --settings."
            ) from error
        port = runner.addresses[0][1]
        names = ("127.0.0.1", "localhost", "[::1]")
        origins = (settings.origin,) if settings.origin else tuple(f"http://{name}:{port}" for name in names)
        server.origins, server.user_header = origins, settings.user_header
        yield origins[0]
    finally:
        await runner.cleanup()


def addresses(server: Server, origin: str) -> dict[str, str]:
    """Return the readers' login addresses by name; {} behind a proxy that names readers."""
    readers = server.work.people if server.user_header is None else ()
    return {reader: server.address(reader, origin) for reader in readers}


async def _serve(server: Server, settings: ServerSettings) -> None:
    async with listening(server, settings) as origin:
        for reader, address in addresses(server, origin).items():
            print(f"{reader}: {address}", flush=True)
        print(f"{len(server.work.cases)} scans at {origin} (stop with Ctrl+C)", flush=True)
        asyncio.get_running_loop().run_in_executor(None, server.open_first)
        await asyncio.Event().wait()
