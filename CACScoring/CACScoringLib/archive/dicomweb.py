"""Access to an archive by DICOMweb (DICOM PS3.18): QIDO-RS searches, WADO-RS retrieves, STOW-RS stores."""

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

from ..core import errors
from .address import ANSWER_SECONDS, CONNECT_SECONDS, Access, Address
from .series import DicomFile, ImageFacts, SeriesFilter, SeriesSummary, image_facts, select, series_summary, text_of

PAGE = 500
"""Number of answers per request; archives may return fewer."""

_FIELDS = [
    "StudyDate",
    "PatientID",
    "SeriesDescription",
    "SeriesNumber",
    "SeriesTime",
    "NumberOfSeriesRelatedInstances",
]

_ENCODED = re.compile(r"[^A-Za-z0-9._-]+")
"""Characters that are percent-encoded in a URL."""


class _Session(requests.Session):
    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request; the timeouts are those of connecting, and between bytes."""
        return super().send(request, **options | {"timeout": (CONNECT_SECONDS, ANSWER_SECONDS)})

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remove credentials after a redirection, without `requests`' lookup in the user's .netrc."""
        if self.should_strip_auth(response.request.url or "", prepared_request.url or ""):
            prepared_request.headers.pop("Authorization", None)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request with literal wildcards, which RFC 3986 allows in a query."""
        prepared = super().prepare_request(request)
        prepared.url = prepared.url and prepared.url.replace("%2A", "*")
        return prepared

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> dict[str, Any]:
        """Use the session's authorities, over which `requests` would prefer those of REQUESTS_CA_BUNDLE."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return settings if self.verify is True else {**settings, "verify": self.verify}


class DicomWebArchive:
    """Implements `series.Archive`."""

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        session = _Session()
        session.headers["Accept"] = "application/dicom+json"  # for answers to STOW-RS
        session.auth = partial(_authorise, access)
        session.max_redirects = 3
        if address.secure:
            session.verify = str(access.authorities) if access.authorities else True
            if access.certificate:
                session.cert = (str(access.certificate), str(access.key)) if access.key else str(access.certificate)
        self._client = DICOMwebClient(address.url, session)
        self._client.set_http_retry_params(retry=False)

    def find_series(self, series_filter: SeriesFilter) -> list[SeriesSummary]:
        """Return the series that match except for slice thickness. Raises ArchiveError."""
        of_series = {"Modality": series_filter.modality, "SeriesInstanceUID": series_filter.series_uid}
        keys = {name: value for name, value in (series_filter.study_keys | of_series).items() if value is not None}
        series = self._search(keys)
        if not series and keys.get("PatientID", "") != (pattern := _ENCODED.sub("*", keys.get("PatientID", ""))):
            # Orthanc's plugin 1.7 does not decode percent-encoded characters, and finds no such patient.
            series = self._search({**keys, "PatientID": pattern})
        return select(series, series_filter)

    def _search(self, keys: dict[str, str]) -> list[SeriesSummary]:
        query = partial(self._client.search_for_series, search_filters=keys, fields=_FIELDS)
        answers = self._all_pages(query, "SeriesInstanceUID").values()
        summaries = (series_summary(answer, None, lambda *uids: len(self.instance_uids(*uids))) for answer in answers)
        return [summary for summary in summaries if summary is not None]

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Return the instance UIDs of a series. Raises ArchiveError."""
        try:
            query = partial(self._client.search_for_instances, study_uid, series_uid)
            return set(self._all_pages(query, "SOPInstanceUID"))
        except errors.NoSuchSeriesError:  # the answer of some archives instead of an empty list
            return set()

    def _all_pages(self, query: Callable[..., list[dict[str, Any]]], keyword: str) -> dict[str, Dataset]:
        """Return all answers to a search by the UID in a keyword. Raises ArchiveError.

        query: function of limit and offset.
        """
        answers: dict[str, Dataset] = {}
        offset = 0
        while True:
            with self._translate_errors():
                page = query(limit=PAGE, offset=offset)
            count = len(answers)
            answers |= {text_of(answer, keyword): answer for answer in map(_dataset, page)}
            offset += len(page)
            if len(answers) == count:  # an archive that ignores the offset returns the same page again
                return answers

    def image_facts(self, series: SeriesSummary) -> ImageFacts:
        """Return facts of one image of a series. Raises ArchiveError, NoSuchSeriesError."""
        with self._translate_errors():
            answers = self._client.search_for_instances(
                series.study_uid, series.series_uid, limit=1, fields=["ImageType", "SliceThickness"]
            )
        if not answers:
            raise errors.NoSuchSeriesError("The archive has no such series. Check its UID.")
        return image_facts(_dataset(answers[0]))

    def retrieve(self, series: SeriesSummary, receive: Callable[[bytes], None]) -> None:
        """Fetch a series. Raises ArchiveError, NoSuchSeriesError, and exceptions of `receive`."""
        with self._translate_errors():
            datasets = self._client.iter_series(series.study_uid, series.series_uid)
        while True:
            with self._translate_errors():
                dataset = next(datasets, None)
                content = BytesIO()
                if dataset is not None:
                    pydicom.dcmwrite(content, dataset)
            if dataset is None:
                return
            receive(content.getvalue())

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Store files, and return reasons of refusal by instance UID. Raises ArchiveError."""
        refused = {}
        for file in files:  # one per request, because some archives do not list what they refuse
            try:
                with self._translate_errors():
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
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors into ArchiveErrors without the URL, which may name a patient."""
        address = self._address
        try:
            yield
        except requests.HTTPError as error:
            raise _http_error(0 if error.response is None else error.response.status_code, address) from None
        except requests.exceptions.SSLError as error:
            raise errors.ArchiveError(
                f"No secure connection to {address} can be made: its certificate is not trusted, or it wants another "
                "one of this program. Give the certificate of its authority as authorities in --settings."
            ) from error
        except requests.exceptions.TooManyRedirects:
            raise errors.ArchiveError(f"{address} leads elsewhere and back. Check the address.") from None
        except requests.exceptions.InvalidJSONError:
            message = f"{address} does not answer as a DICOMweb server. Check the address."
            raise errors.ArchiveUnreachableError(message) from None
        except (requests.RequestException, ConnectionError, TimeoutError):
            raise errors.ArchiveUnreachableError(
                f"{address} does not answer. Check the address, that the archive is running, and whether it answers a "
                "narrower search."
            ) from None
        except (errors.ArchiveError, OSError):
            raise
        except Exception as error:  # client and pydicom raise any exception for invalid answers
            raise errors.ArchiveUnreachableError(
                f"{address} gave an answer that is no DICOMweb ({type(error).__name__}). Check the address."
            ) from None


class _RefusedError(errors.ArchiveError):
    """The instance of a request was not stored (DICOM PS3.18, table 10.5.3-1)."""


def _authorise(access: Access, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add the current token to a request. `requests` omits it after a redirection to another host."""
    try:
        token = access.token()
    except errors.OutputError as error:
        raise errors.ArchiveUnauthorisedError(str(error)) from error
    if token:
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def _http_error(status: int, address: Address) -> errors.ArchiveError:
    if status in (401, 403):
        return errors.ArchiveUnauthorisedError(
            f"{address} refuses access (HTTP {status}). Check the token, and what its owner may do in the archive."
        )
    if status == 404:
        return errors.NoSuchSeriesError(f"{address} knows no such series, or its address is another (HTTP 404).")
    if status == 409:
        return _RefusedError(f"{address} refused to store the objects (HTTP 409).")
    if status in (408, 425, 429) or status >= 500:
        return errors.ArchiveUnreachableError(f"{address} cannot answer now (HTTP {status}). Try again later.")
    return errors.ArchiveError(f"{address} refused the request (HTTP {status}).")


def _dataset(answer: dict[str, Any]) -> Dataset:
    """Return an answer in the DICOM JSON model as a dataset, without broken elements."""
    dataset = Dataset()
    for tag, element in answer.items():
        try:
            dataset.update(Dataset.from_json({tag: element}))
        except Exception:  # pydicom's converters raise any exception for broken values
            continue
    return dataset
