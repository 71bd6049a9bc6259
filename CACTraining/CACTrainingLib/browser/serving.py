"""Starting and stopping the server of a folder of results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlencode

from aiohttp import web
from filelock import FileLock, Timeout

from CACScoringLib.core.files import OutputError

from ..project.project import Project
from .cases import check_present
from .safety import Gate, stored_key
from .server import Place, Server
from .work_list import WorkList

LOCK = ".review.lock"


def serve(results: Path, work: WorkList, project: Path | None, dicom: bool, place: Place) -> None:
    """Serve the review of results until the process is stopped; says on standard output how readers come in.

    Arguments and errors as of `reviewing` and `listening`.
    """
    with reviewing(results, work, project, dicom) as server:
        asyncio.run(_serve(server, place))


@contextmanager
def reviewing(results: Path, work: WorkList, project: Path | None, dicom: bool) -> Iterator[Server]:
    """Give a server that alone reviews the results.

    results: the folder of the cases' results. project, dicom: as of `Server`.

    Raises OutputError when another server is at work there, CTError when no CT is where it was.
    """
    check_present(list(work.cases.values()))
    if project is not None:
        project = Project.open(project).folder
    lock = FileLock(results / LOCK)
    try:
        key = stored_key()
        lock.acquire(timeout=0)
    except Timeout:
        message = f"Another server reviews {results}. Use that one, or stop it first."
        raise OutputError(message) from None
    except OSError as error:
        raise OutputError(f"Reviews cannot be kept in {results}: {error.strerror}. Check its permissions.") from error
    with lock:
        yield Server(work, Gate(key, str(results.resolve()), work.readers), project, dicom)


@asynccontextmanager
async def listening(server: Server, place: Place) -> AsyncIterator[str]:
    """Let a server answer, and give the origin of its pages. Raises OutputError when the port is taken."""
    # It would print where in its own parser a damaged request was found; what fails in ours is said by the server.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, place.host, place.port)
        try:
            await site.start()
        except OSError as error:
            raise OutputError(
                f"Port {place.port} cannot be used ({error.strerror}). Choose another port in --settings."
            ) from error
        port = runner.addresses[0][1]
        names = ("127.0.0.1", "localhost", "[::1]")
        origins = (place.origin,) if place.origin else tuple(f"http://{name}:{port}" for name in names)
        server.origins, server.user_header = origins, place.user_header
        yield origins[0]
    finally:
        await runner.cleanup()


def addresses(server: Server, origin: str) -> dict[str, str]:
    """By which readers come in, by name; none where a proxy names them."""
    readers = server.work.readers if server.user_header is None else ()
    query = {reader: urlencode({"reader": reader, "token": server.gate.token(reader)}) for reader in readers}
    return {reader: f"{origin}/login?{text}" for reader, text in query.items()}


async def _serve(server: Server, place: Place) -> None:
    async with listening(server, place) as origin:
        for reader, address in addresses(server, origin).items():
            print(f"{reader}: {address}", flush=True)
        print(f"{len(server.work.cases)} scans at {origin} (stop with Ctrl+C)", flush=True)
        asyncio.get_running_loop().run_in_executor(None, server.open_first)
        await asyncio.Event().wait()
