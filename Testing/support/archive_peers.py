"""Peers for the tests of archives: an SCP of pynetdicom, a DICOMweb server, and a scorer that takes milliseconds."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from fnmatch import fnmatchcase
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom
from dicom_files import save
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
from whole_records import whole_record

from CACScoringLib.core.files import LAST_FILE

REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.22"
MATCHED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality")
ANSWERED = (
    *("StudyDate", "SeriesDescription", "SeriesNumber", "SeriesTime", "PatientName"),
    *("SOPClassUID", "ImageType", "SliceThickness"),
)


def report_about(source: Dataset, images: int) -> Dataset:
    """Make a CAC structured report about a series with a number of images, with reproducible UIDs."""
    report = Dataset()
    report.SOPClassUID, report.Modality = REPORT_CLASS, "SR"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"):
        setattr(report, keyword, source.get(keyword, ""))
    for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(report, keyword, source.get(keyword, ""))
    report.SeriesInstanceUID = generate_uid(entropy_srcs=[source.SeriesInstanceUID, "series"])
    report.SOPInstanceUID = generate_uid(entropy_srcs=[source.SeriesInstanceUID, str(images)])
    report.Manufacturer, report.SeriesDescription = "CAC", f"CAC, {images} images"
    referenced = Dataset()
    referenced.SeriesInstanceUID = source.SeriesInstanceUID
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.StudyInstanceUID, [referenced]
    report.CurrentRequestedProcedureEvidenceSequence = [study]
    return report


def score_by_stub(log: Path, job: tuple[Path, Path]) -> str | None:
    """Write a result with a report instead of scoring; each call adds a line to a log.

    A series described as "bad" cannot be scored, the result of one described as "doubtful" has a severe warning.
    """
    series, folder = job
    files = sorted(series.iterdir())
    source = pydicom.dcmread(files[0], stop_before_pixels=True)
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"{source.SeriesInstanceUID} {len(files)}\n")
    if source.get("SeriesDescription") == "bad":
        return "It cannot be scored."
    folder.mkdir()
    save(report_about(source, len(files)), folder / "measurements.dcm")
    record = {**whole_record(), "images": len(files), "seconds": {"scoring": 1.5}}
    if source.get("SeriesDescription") == "doubtful":
        record["warnings"] = [{"code": "contrast-enhanced", "message": "The blood is bright.", "severe": True}]
    (folder / LAST_FILE).write_text(json.dumps(record), encoding="utf-8")
    return None


def stub_scorer(log: Path) -> Callable:
    """Scorer for `Watch.run`, which calls `score_by_stub`."""
    return partial(partial, score_by_stub, log)


class Store:
    """Instances of a peer, and its faults.

    Attributes:
        instances: Datasets by UID.
        fail: Number of following requests without an answer.
        break_after: Number of instances after which a transfer breaks, once.
        refused_class: SOP class that is refused.
        decodes: True if the peer decodes percent-encoded addresses.
        requests: All requests.
        tokens: Authorization headers of all requests.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Dataset] = {}
        self.fail = 0
        self.break_after: int | None = None
        self.refused_class: str | None = None
        self.decodes = True
        self.requests: list[str] = []
        self.tokens: list[str | None] = []

    def add(self, *paths: Path) -> None:
        for path in paths:
            dataset = pydicom.dcmread(path)
            self.instances[str(dataset.SOPInstanceUID)] = dataset

    def matching(self, keys: dict[str, str]) -> list[Dataset]:
        return [
            dataset
            for dataset in self.instances.values()
            if all(fnmatchcase(str(dataset.get(key, "")), value) for key, value in keys.items() if value)
        ]

    def grouped(self, keys: dict[str, str], by: str) -> list[list[Dataset]]:
        groups: dict[str, list[Dataset]] = {}
        for dataset in self.matching(keys):
            groups.setdefault(str(dataset[by].value), []).append(dataset)
        return list(groups.values())

    def breaks(self, sent: int) -> bool:
        if self.break_after is not None and sent >= self.break_after:
            self.break_after = None
            return True
        return False


def _answer(dataset: Dataset, images: int) -> Dataset:
    answer = Dataset()
    for keyword in MATCHED + ANSWERED:
        if keyword in dataset:
            answer[keyword] = dataset[keyword]
    answer.NumberOfSeriesRelatedInstances = images
    return answer


class _Dimse:
    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, event):
        self._store.requests.append("C-FIND")
        if self._store.fail:
            self._store.fail -= 1
            event.assoc.abort()
            return
        query = event.identifier
        keys = {key: str(query.get(key) or "") for key in MATCHED}
        level = query.QueryRetrieveLevel
        by = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
        if level == "STUDY":
            keys["Modality"] = str(query.get("ModalitiesInStudy") or "")
        for group in self._store.grouped(keys, by):
            answer = _answer(group[0], len(group))
            if level == "STUDY":
                instances = self._store.grouped({"StudyInstanceUID": answer.StudyInstanceUID}, by)
                answer.NumberOfStudyRelatedInstances = len(instances[0])
            yield 0xFF00, answer

    def get(self, event):
        self._store.requests.append("C-GET")
        query = event.identifier
        matches = self._store.matching({key: str(query.get(key) or "") for key in MATCHED})
        yield len(matches)
        for sent, dataset in enumerate(matches):
            if self._store.breaks(sent):
                event.assoc.abort()
                return
            yield 0xFF00, dataset

    def keep(self, event):
        self._store.requests.append("C-STORE")
        dataset = event.dataset
        if dataset.SOPClassUID == self._store.refused_class:
            return 0xA900
        dataset.file_meta = event.file_meta
        self._store.instances[str(dataset.SOPInstanceUID)] = dataset
        return 0x0000


@contextmanager
def dimse_peer(store: Store, ae_title: str = "PEER", tls=None, **limits) -> Iterator[str]:
    """Run a DIMSE archive of pynetdicom and yield its address; `limits` are attributes of its application entity."""
    entity = AE(ae_title)
    for name, value in limits.items():
        setattr(entity, name, value)
    for model in (StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet):
        entity.add_supported_context(model)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, scu_role=True, scp_role=True)

    peer = _Dimse(store)
    handlers = [(evt.EVT_C_FIND, peer.find), (evt.EVT_C_GET, peer.get), (evt.EVT_C_STORE, peer.keep)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    try:
        scheme = "dimse" if tls is None else "dimses"
        host = "127.0.0.1" if tls is None else "localhost"
        yield f"{scheme}://{ae_title}@{host}:{server.server_address[1]}"
    finally:
        server.shutdown()


@contextmanager
def web_peer(store: Store, token: str | None = None, tls=None) -> Iterator[str]:
    """Run a DICOMweb archive, optionally with a required token, and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Web, store, token))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        where = "http://127.0.0.1" if tls is None else "https://localhost"
        yield f"{where}:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Web(BaseHTTPRequestHandler):
    wbufsize = -1  # sends header and content together, because clients wait between the two

    def __init__(self, store: Store, token: str | None, *args) -> None:
        self.store, self.token = store, token
        super().__init__(*args)

    def log_message(self, *args) -> None:
        """Log nothing."""

    def _is_let_in(self) -> bool:
        self.store.requests.append(f"{self.command} {self.path}")
        self.store.tokens.append(self.headers.get("Authorization"))
        if self.store.fail:
            self.store.fail -= 1
            self._say(503)
        elif self.token is not None and self.headers.get("Authorization") != f"Bearer {self.token}":
            self._say(401)
        else:
            return True
        return False

    def do_GET(self) -> None:
        if not self._is_let_in():
            return
        url = urlsplit(self.path)
        if not url.path.startswith("/dicom-web/"):
            self._say(200, b"<html>Welcome</html>", "text/html")
            return
        pairs = parse_qs(url.query if self.store.decodes else url.query.replace("%", "%25"))
        query = {name: values[0] for name, values in pairs.items()}
        parts = url.path.removeprefix("/dicom-web/").split("/")
        keys = {key: query.get(key, "") for key in MATCHED}
        if len(parts) > 1 and parts[0] == "studies":
            keys["StudyInstanceUID"] = parts[1]
        if len(parts) > 3:
            keys["SeriesInstanceUID"] = parts[3]
        if len(parts) == 4:
            self._send_series(self.store.matching(keys))
            return
        by = "SOPInstanceUID" if parts[-1] == "instances" else "SeriesInstanceUID"
        groups = self.store.grouped(keys, by)
        offset = int(query.get("offset", 0))
        page = groups[offset : offset + min(2, int(query.get("limit", 2)))]  # pages smaller than asked for
        answers = [_answer(group[0], len(group)).to_json_dict() for group in page]
        self._say(200, json.dumps(answers).encode(), "application/dicom+json")

    def _send_series(self, datasets: list[Dataset]) -> None:
        if not datasets:
            self._say(404)
            return
        body = b""
        for sent, dataset in enumerate(datasets):
            if self.store.breaks(sent):
                self.send_response(200)
                self.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=x')
                self.send_header("Content-Length", str(10**6))
                self.end_headers()
                self.wfile.write(body)
                return
            file = io.BytesIO()
            pydicom.dcmwrite(file, dataset)
            body += b"\r\n--x\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue()
        self._say(200, body + b"\r\n--x--", 'multipart/related; type="application/dicom"; boundary=x')

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_let_in():
            return
        header = Message()
        header["Content-Type"] = self.headers["Content-Type"]
        boundary = b"--" + header.get_param("boundary").encode()
        stored, failed = [], []
        for part in body.split(boundary)[1:-1]:
            dataset = pydicom.dcmread(io.BytesIO(part.partition(b"\r\n\r\n")[2][:-2]))
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
            if dataset.SOPClassUID == self.store.refused_class:
                item.FailureReason = 0xA900
                failed.append(item)
            else:
                self.store.instances[str(dataset.SOPInstanceUID)] = dataset
                stored.append(item)
        answer = Dataset()
        answer.ReferencedSOPSequence, answer.FailedSOPSequence = stored, failed
        status = 200 if not failed else 202 if stored else 409
        self._say(status, json.dumps(answer.to_json_dict()).encode(), "application/dicom+json")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _say(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
