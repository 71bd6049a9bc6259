"""An archive by DICOMweb (DICOM PS3.18): QIDO-RS finds, WADO-RS retrieves, STOW-RS stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from ..core.files import OutputError
from .address import (
    Access,
    Address,
    ArchiveError,
    ArchiveUnauthorisedError,
    ArchiveUnreachableError,
    NoSuchSeriesError,
)
from .files import DicomFile
from .series import FoundSeries, ImageFacts, SeriesFilter, found_series, image_facts, in_order, text_of

PAGE = 500
"""Answers asked for at once; archives may give fewer."""

TIMEOUT_SECONDS = (10.0, 120.0)
"""To connect, and between bytes."""

_FIELDS = [
    "StudyDate",
    "PatientID",
    "SeriesDescription",
    "SeriesNumber",
    "SeriesTime",
    "NumberOfSeriesRelatedInstances",
]

_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
"""What is encoded in an address."""


class _Bearer(requests.auth.AuthBase):
    """Shows the token as it is at each request. `requests` leaves it out where it is led to another host."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            token = self._access.token()
        except OutputError as error:
            raise ArchiveUnauthorisedError(str(error)) from error
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Without what `requests` would read from the user's .netrc for a host that it is led to."""
        if self.should_strip_auth(response.request.url, prepared_request.url):
            prepared_request.headers.pop("Authorization", None)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """With wildcards as they are, as RFC 3986 allows in a query."""
        prepared = super().prepare_request(request)
        prepared.url = prepared.url.replace("%2A", "*")
        return prepared

    def merge_environment_settings(self, url, proxies, stream, verify, cert) -> dict:
        """With the authorities that were given: `requests` puts those of REQUESTS_CA_BUNDLE before them."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return settings if self.verify is True else {**settings, "verify": self.verify}


class DicomWebArchive:
    """Implements `series.Archive`."""

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        session = _Session()
        session.headers["Accept"] = "application/dicom+json"  # for answers to what is stored
        session.auth = _Bearer(access)
        session.max_redirects = 3
        if address.secure:
            session.verify = str(access.authorities) if access.authorities else True
            if access.certificate:
                session.cert = (str(access.certificate), str(access.key)) if access.key else str(access.certificate)
        self._client = DICOMwebClient(address.url, session, timeout=TIMEOUT_SECONDS)
        self._client.set_http_retry_params(retry=False)

    def find_series(self, wanted: SeriesFilter) -> list[FoundSeries]:
        """Raises ArchiveError."""
        keys = {
            "Modality": wanted.modality,
            "PatientID": wanted.patient_id,
            "StudyInstanceUID": wanted.study_uid,
            "SeriesInstanceUID": wanted.series_uid,
            "StudyDate": None if (dates := wanted.date_range()) is None else "-".join(dates),
        }
        keys = {name: value for name, value in keys.items() if value is not None}
        if dates and dates[0] == dates[1]:
            keys["StudyDate"] = dates[0]
        found = self._search(keys)
        if not found and keys.get("PatientID", "") != (loose := _UNUSUAL.sub("*", keys.get("PatientID", ""))):
            # Orthanc's plugin 1.7 takes what is encoded in an address as it stands, and finds no such patient.
            found = self._search({**keys, "PatientID": loose})
        return in_order(found, wanted)

    def _search(self, keys: dict[str, str]) -> list[FoundSeries]:
        ask = partial(self._client.search_for_series, search_filters=keys, fields=_FIELDS)
        answers = self._all_pages(ask, "SeriesInstanceUID").values()
        series = (found_series(answer, None, lambda *uids: len(self.instance_uids(*uids))) for answer in answers)
        return [each for each in series if each is not None]

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Raises ArchiveError."""
        try:
            ask = partial(self._client.search_for_instances, study_uid, series_uid)
            return set(self._all_pages(ask, "SOPInstanceUID"))
        except NoSuchSeriesError:  # some archives answer so in place of an empty list
            return set()

    def _all_pages(self, ask: Callable[..., list[dict]], keyword: str) -> dict[str, Dataset]:
        """The answers to a search, by the UID of a keyword. ask: takes limit and offset. Raises ArchiveError."""
        answers: dict[str, Dataset] = {}
        offset = 0
        while True:
            with self._asking():
                page = ask(limit=PAGE, offset=offset)
            known = len(answers)
            answers |= {text_of(answer, keyword): answer for answer in map(_dataset, page)}
            offset += len(page)
            if len(answers) == known:  # an archive that passes over the offset gives the same page again
                return answers

    def image_facts(self, series: FoundSeries) -> ImageFacts:
        """Raises ArchiveError, NoSuchSeriesError."""
        with self._asking():
            answers = self._client.search_for_instances(
                series.study_uid, series.series_uid, limit=1, fields=["ImageType", "SliceThickness"]
            )
        if not answers:
            raise NoSuchSeriesError("The archive has no such series. Check its UID.")
        return image_facts(_dataset(answers[0]))

    def retrieve(self, series: FoundSeries, receive: Callable[[bytes], None]) -> None:
        """Raises ArchiveError, NoSuchSeriesError, and what `receive` raises."""
        with self._asking():
            datasets = self._client.iter_series(series.study_uid, series.series_uid)
        while True:
            with self._asking():
                dataset = next(datasets, None)
                content = BytesIO()
                if dataset is not None:
                    pydicom.dcmwrite(content, dataset)
            if dataset is None:
                return
            receive(content.getvalue())

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Raises ArchiveError."""
        refused = {}
        for file in files:  # in requests of their own: what is refused is then known where an archive gives no list
            try:
                with self._asking():
                    failed = self._client.store_instances([pydicom.dcmread(file.path)]).get("FailedSOPSequence")
            except _RefusedError:
                refused[file.uid] = "it was refused (HTTP 409)"
                continue
            if failed:
                reason = failed[0].get("FailureReason")
                code = f"{int(reason):04X}" if isinstance(reason, int) else "none given"
                refused[file.uid] = f"failure reason {code} (DICOM PS3.18, I.2.2)"
        return refused

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what goes wrong into an ArchiveError, without the address asked, which may name a patient."""
        where = self._address
        try:
            yield
        except requests.HTTPError as error:
            raise _http_error(error.response.status_code, where) from None
        except requests.exceptions.SSLError as error:
            raise ArchiveError(
                f"No secure connection to {where} can be made: its certificate is not trusted, or it wants another one "
                "of this program. Give the certificate of its authority as authorities in --settings."
            ) from error
        except requests.exceptions.TooManyRedirects:
            raise ArchiveError(f"{where} leads elsewhere and back. Check the address.") from None
        except requests.exceptions.InvalidJSONError:
            raise ArchiveUnreachableError(f"{where} does not answer as a DICOMweb server. Check the address.") from None
        except (requests.RequestException, ConnectionError, TimeoutError):
            raise ArchiveUnreachableError(
                f"{where} does not answer. Check the address, and that the archive is running."
            ) from None
        except (ArchiveError, OSError):
            raise
        except Exception as error:  # answers that are no DICOMweb make the client and pydicom raise whatever they meet
            raise ArchiveUnreachableError(
                f"{where} gave an answer that is no DICOMweb ({type(error).__name__}). Check the address."
            ) from None


class _RefusedError(ArchiveError):
    """The instance of a request was not stored (DICOM PS3.18, table 10.5.3-1)."""


def _http_error(status: int, where: Address) -> ArchiveError:
    if status in (401, 403):
        return ArchiveUnauthorisedError(
            f"{where} refuses access (HTTP {status}). Check the token, and what its owner may do in the archive."
        )
    if status == 404:
        return NoSuchSeriesError(f"{where} knows no such series, or its address is another (HTTP 404).")
    if status == 409:
        return _RefusedError(f"{where} refused to store the objects (HTTP 409).")
    if status in (408, 425, 429) or status >= 500:
        return ArchiveUnreachableError(f"{where} cannot answer now (HTTP {status}). Try again later.")
    return ArchiveError(f"{where} refused the request (HTTP {status}).")


def _dataset(answer: dict[str, Any]) -> Dataset:
    """An answer in the DICOM JSON model, without elements that are broken."""
    dataset = Dataset()
    for tag, element in answer.items():
        try:
            dataset.update(Dataset.from_json({tag: element}))
        except Exception:  # broken values raise whatever pydicom's converters meet
            continue
    return dataset
