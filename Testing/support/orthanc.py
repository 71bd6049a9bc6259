"""A real Orthanc on free loopback ports, with storage of its own, for tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

PLUGINS = Path("/usr/share/orthanc/plugins")
PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def missing() -> str | None:
    """Why no Orthanc with DICOMweb can be started here; None where one can."""
    if PROGRAM is None:
        return "Orthanc is not installed (Debian package orthanc)"
    if not (PLUGINS / "libOrthancDicomWeb.so").exists():
        return "Orthanc's DICOMweb plugin is not installed (Debian package orthanc-dicomweb)"
    return None


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Orthanc:
    """An Orthanc that keeps its storage in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.dicom_port = free_port(), free_port()
        self._log = folder / "orthanc.log"
        self._configuration = folder / "orthanc.json"
        content = {
            "Name": "CAC tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http_port,
            "HttpServerEnabled": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowStore": True,
            "ConcurrentJobs": 1,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        self._configuration.write_text(json.dumps(content), encoding="utf-8")

    @property
    def web_address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def dimse_address(self) -> str:
        return f"dimse://ORTHANC@127.0.0.1:{self.dicom_port}"

    def start(self) -> Orthanc:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(self._configuration)], stdout=log, stderr=log)
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError(f"Orthanc ended: {self._log.read_text(errors='replace', encoding='utf-8')[-2000:]}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/system", timeout=10):
                    return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError("Orthanc did not answer.")

    def stop(self) -> None:
        """End it in order."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
