"""A cohort of scored scans, and `cac review` of it, in a thread or a process."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import automatic_patient
import SimpleITK as sitk

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.cohort import table
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress, ScanState
from CACScoringLib.core.tables import table_text
from CACScoringLib.record.score_record import read_result
from CACScoringLib.results import ScoreResult
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scans.source import ScanSource
from CACTrainingLib.browser import serving
from CACTrainingLib.cli import review as cli


def write_cohort(folder: Path, names: Sequence[str], result: ScoreResult | None = None) -> Path:
    """Write CTs and their results of `cac cohort`; return the folder of the results.

    Each scan has the same result, that of `automatic_patient` if None.
    """
    root = folder / "results"
    (folder / "cts").mkdir(parents=True)
    scans, states, rows = [], [], []
    for name in names:
        ct = folder / "cts" / f"{name}.nii.gz"
        if not scans:
            if result is None:
                result = automatic_patient.write(root / name)
            else:
                write_result(OutputFolder(root / name), result, RunSettings(), Progress())
            sitk.WriteImage(result.scan.image, str(ct))
        else:
            shutil.copy(scans[0].ct, ct)
            shutil.copytree(states[0].folder, root / name)
        scans.append(ScanSource(name, "", ct, key=ct.name))
        states.append(ScanState(len(states), name, root / name, ct, state="done"))
        rows.append(table.result_row(read_result(root / name)))
    columns = table.columns(result.methods, identify=False)
    record = {"schema": cohort.SCHEMA, "made_with": {}, "scans": {name: {"scan": name, "masks": ""} for name in names}}
    (root / cohort.RECORD).write_text(json.dumps(record), encoding="utf-8")
    lines = [table.line(*scan, columns) for scan in zip(scans, states, rows, strict=True)]
    (root / cohort.TABLE).write_text(table_text(columns, ()) + "".join(lines), encoding="utf-8")
    return root


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def act(review, action, reader="Ann", method="threshold", looked_at=(), **parts):
    """Carry out an action in an open review, as a request would, by a reader who has seen lesions."""
    request = {"action": action, "method": method, "version": review.version, "seconds": 1.0, **parts}
    review.act(reader, review.request_of(request | {"looked_at": {method: list(looked_at)}}))


@dataclass
class ReviewServer:
    """`cac review` in a process.

    Attributes:
        process: The process.
        addresses: Address of each reader, by name.
        origin: Origin of its pages.
    """

    process: subprocess.Popen
    addresses: dict[str, str]
    origin: str

    @classmethod
    def start(cls, results: Path, *options: str, data: Path) -> ReviewServer:
        """Start the server on a free port, unless options name one, with `data` as the user's data folder."""
        command = [sys.executable, "-m", "CACTrainingLib.cli", "review", str(results), *options]
        if "--settings" not in options:
            command += ["--settings", '{"port": 0}']
        environment = os.environ | {"XDG_DATA_HOME": str(data), "LOCALAPPDATA": str(data), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=None if os.name == "nt" else _heed_interrupts,
        )
        addresses = {}
        for line in process.stdout:
            if match := re.fullmatch(r"(.+): (http\S+)\n", line):
                addresses[match[1]] = match[2]
            if match := re.search(r"scans at (\S+)", line):
                return cls(process, addresses, match[1])
        raise AssertionError(process.stderr.read())

    @property
    def port(self) -> int:
        """Port of the server; with another origin that of the settings."""
        options = self.process.args
        return urlsplit(self.origin).port or json.loads(options[options.index("--settings") + 1])["port"]

    def kill(self) -> None:
        """Kill the server, as by a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> str:
        """Stop the server as by Ctrl+C, and return its standard error."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=120)[1]

    def client(self, reader: str) -> Client:
        return Client(self, reader)


def _heed_interrupts() -> None:
    """Restore the handler of SIGINT, which a process in the background may ignore and its children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class ThreadedServer:
    """`cac review` in a thread of this process, which starts quickly; otherwise like `ReviewServer`."""

    def __init__(self, results: Path, *options: str) -> None:
        parser = argparse.ArgumentParser()
        cli.add_arguments(parser)
        arguments = parser.parse_args([str(results), "--settings", '{"port": 0}', *options])
        self._reviewing = serving.reviewing(*cli.serve_arguments(arguments))
        self._server, self._place = self._reviewing.__enter__(), cli.place_of(arguments)
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        while not self._ready.wait(1):
            assert self._thread.is_alive()
        self.addresses = serving.addresses(self._server, self.origin)
        self.port = urlsplit(self.origin).port

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with serving.listening(self._server, self._place) as self.origin:
            self._ready.set()
            await self._stop.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._loop.close()
            self._reviewing.__exit__(None, None, None)

    def client(self, reader: str) -> Client:
        return Client(self, reader)


class Client:
    """A reader's session without a browser."""

    def __init__(self, server: ReviewServer | ThreadedServer, reader: str) -> None:
        self.server = server
        self.host = urlsplit(server.origin).netloc
        parts = urlsplit(server.addresses[reader])
        response = self.raw("GET", f"{parts.path}?{parts.query}")
        assert response[0] == 303, response
        self.cookie = response[2]["Set-Cookie"].split(";")[0]
        page = self.raw("GET", "/", headers={"Cookie": self.cookie})[1].decode()
        self.csrf = re.search(r'name="csrf" content="([^"]+)"', page)[1]

    @classmethod
    def bare(cls, server: ReviewServer, host: str) -> Client:
        """Make a session without a reader."""
        client = cls.__new__(cls)
        client.server, client.host = server, host
        return client

    def raw(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> tuple:
        """Send a request with only these headers and a Host; return status, content and headers of the answer."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Host": self.host} | (headers or {})).items():
                for item in value if isinstance(value, list) else [value]:
                    if item is not None:
                        connection.putheader(name, item)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    @property
    def headers(self) -> dict:
        """Headers of a valid change."""
        return {
            "Cookie": self.cookie,
            "Origin": self.server.origin,
            "X-CSRF-Token": self.csrf,
            "Content-Type": "application/json",
        }

    def get(self, path: str) -> dict:
        status, content, _ = self.raw("GET", path, headers={"Cookie": self.cookie})
        assert status == 200, content
        return json.loads(content)

    def post(self, path: str, content: object) -> tuple[int, dict]:
        status, answer, _ = self.raw("POST", path, json.dumps(content).encode(), self.headers)
        return status, json.loads(answer)

    def rows(self) -> dict[str, dict]:
        """Work list by name of the scan."""
        return {row["name"]: row for row in self.get("/api/work")["rows"]}

    def base(self, name: str, reading: str = "own") -> str:
        """Address of a scan's review."""
        return f"/api/scans/{self.rows()[name]['id']}/{reading}"

    def act(self, base: str, action: str, method: str = "threshold", version: int | None = None, **parts) -> dict:
        """Send an action and return the state; fail if it is refused. The version is the present one if None."""
        version = self.get(base)["version"] if version is None else version
        request = {"action": action, "method": method, "version": version, "seconds": 1, **parts}
        status, content = self.post(f"{base}/act", request)
        assert status == 200, content
        return content
