"""Access to an archive by DIMSE (DICOM PS3.4 and PS3.7): C-FIND, C-GET and C-STORE, without incoming connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydicom import uid as syntaxes
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from ..core.errors import ArchiveError, ArchiveUnauthorisedError, ArchiveUnreachableError, NoSuchSeriesError
from ..core.files import resource_rows
from .address import ANSWER_SECONDS, CONNECT_SECONDS, Access, Address
from .series import (
    CT_CLASSES,
    DicomFile,
    ImageFacts,
    SeriesFilter,
    SeriesSummary,
    image_facts,
    select,
    series_summary,
    text_of,
)

# pynetdicom would log requests and answers, which contain names of patients.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

NEGOTIATION_SECONDS = 7.0
"""Timeout of negotiating an association."""

RETRIEVED_CLASSES = tuple(row["uid"] for row in resource_rows("sop_classes.csv"))
"""SOP classes that can be fetched. A C-GET proposes them in advance, in at most 128 presentation contexts."""

_PLAIN: list[str | syntaxes.UID] = [syntaxes.ExplicitVRLittleEndian, syntaxes.ImplicitVRLittleEndian]
_COMPRESSED = [
    syntaxes.JPEGLosslessSV1,
    syntaxes.JPEGLSLossless,
    syntaxes.JPEG2000Lossless,
    syntaxes.RLELossless,
    syntaxes.DeflatedExplicitVRLittleEndian,
]
_CONTEXTS = 128
_PENDING = (0xFF00, 0xFF01)
_STUDY_KEYS = ("PatientID", "StudyDate", "StudyInstanceUID", "NumberOfStudyRelatedInstances")
_SERIES_KEYS = (
    *("Modality", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "SeriesTime"),
    "NumberOfSeriesRelatedInstances",
)


class DimseArchive:
    """Implements `series.Archive`."""

    def __init__(self, address: Address, access: Access) -> None:
        self._address, self._access = address, access
        self._tls = (access.tls(), address.host) if address.secure else None
        self._series_of_study: dict[tuple[str, str | None, str | None], tuple[str, list[SeriesSummary]]] = {}

    def find_series(self, series_filter: SeriesFilter) -> list[SeriesSummary]:
        """Return the series that match except for slice thickness. Raises ArchiveError."""
        keys = series_filter.study_keys | {"ModalitiesInStudy": series_filter.modality}
        series = []
        with self._query_association() as association:
            for study in self._find(association, "STUDY", {**dict.fromkeys(_STUDY_KEYS), **keys}):
                series += self._series_of(association, study, series_filter)
        return select(series, series_filter)

    def _series_of(self, association: Association, study: Dataset, series_filter: SeriesFilter) -> list[SeriesSummary]:
        """Return the series of a study, without a new query while its number of images is unchanged."""
        images = text_of(study, "NumberOfStudyRelatedInstances")
        key = text_of(study, "StudyInstanceUID"), series_filter.modality, series_filter.series_uid
        image_count, summaries = self._series_of_study.get(key, ("", []))
        if images and images == image_count:
            return summaries

        def count(study_uid: str, series_uid: str) -> int:
            return len(self._instances(association, study_uid, series_uid))

        keys = {
            **dict.fromkeys(_SERIES_KEYS),
            "StudyInstanceUID": key[0],
            "Modality": series_filter.modality,
            "SeriesInstanceUID": series_filter.series_uid,
        }
        answers = [series_summary(answer, study, count) for answer in self._find(association, "SERIES", keys)]
        summaries = [series for series in answers if series is not None]
        self._series_of_study[key] = images, summaries
        return summaries

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Return the instance UIDs of a series. Raises ArchiveError."""
        with self._query_association() as association:
            return {text_of(answer, "SOPInstanceUID") for answer in self._instances(association, study_uid, series_uid)}

    def image_facts(self, series: SeriesSummary) -> ImageFacts:
        """Return facts of one image of a series. Raises ArchiveError, NoSuchSeriesError."""
        with self._query_association() as association:
            answers = self._instances(association, series.study_uid, series.series_uid)
        if not answers:
            raise NoSuchSeriesError("The archive has no such series. Check its UID.")
        return image_facts(answers[0])

    def retrieve(self, series: SeriesSummary, receive: Callable[[bytes], None]) -> None:
        """Fetch a series. Raises ArchiveError, NoSuchSeriesError, and exceptions of `receive`."""
        faults: list[Exception] = []

        def store(event: evt.Event) -> int:
            try:
                receive(event.encoded_dataset())
            except Exception as error:  # raised below, because pynetdicom would catch it here
                faults.append(error)
                return 0xA700  # out of resources
            return 0x0000

        contexts = [build_context(StudyRootQueryRetrieveInformationModelGet, _PLAIN)]
        contexts += [build_context(uid, _PLAIN) for uid in RETRIEVED_CLASSES]
        contexts += [build_context(uid, syntax) for uid in CT_CLASSES for syntax in _COMPRESSED]
        roles = [build_role(uid, scp_role=True) for uid in RETRIEVED_CLASSES]
        query = _identifier("SERIES", {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid})
        with self._association(contexts, roles, [(evt.EVT_C_STORE, store)]) as association:
            _require(association, StudyRootQueryRetrieveInformationModelGet, "C-GET")
            final_status = Dataset()
            for status, _ in association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet):
                final_status = status
                if faults:
                    association.abort()
                    raise faults[0]
        if faults:
            raise faults[0]
        self._check(final_status, "C-GET")
        if not any(final_status.get(f"NumberOf{kind}Suboperations") for kind in ("Completed", "Failed")):
            raise NoSuchSeriesError("The archive has no such series. Check its UID.")

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Store files, and return reasons of refusal by instance UID. Raises ArchiveError."""
        refused: dict[str, str] = {}
        kinds = list(dict.fromkeys((file.sop_class, file.transfer_syntax) for file in files))
        for start in range(0, len(kinds), _CONTEXTS):
            part = kinds[start : start + _CONTEXTS]
            with self._association([build_context(*kind) for kind in part]) as association:
                accepted = {
                    (context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts
                }
                for file in files:
                    kind = (file.sop_class, file.transfer_syntax)
                    if kind in part and kind not in accepted:
                        refused[file.uid] = "the archive takes no objects of its class and transfer syntax"
                    elif kind in part and (reason := self._store(association, file)):
                        refused[file.uid] = reason
        return refused

    def _store(self, association: Association, file: DicomFile) -> str | None:
        """Store a file. Returns the reason of refusal; None for status 0000 and warnings Bxxx."""
        if not association.is_established:
            raise self._interruption()
        status = association.send_c_store(file.path).get("Status")
        if status is None:
            raise self._interruption()
        return None if status == 0 or status >> 12 == 0xB else f"status {status:04X} (DICOM PS3.4, table B.2-1)"

    def _instances(self, association: Association, study_uid: str, series_uid: str) -> list[Dataset]:
        keys = dict.fromkeys(("SOPInstanceUID", "SOPClassUID", "ImageType", "SliceThickness"))
        uids = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        return self._find(association, "IMAGE", {**keys, **uids})

    def _find(self, association: Association, level: str, keys: dict[str, str | None]) -> list[Dataset]:
        if not association.is_established:
            raise self._interruption()
        answers = []
        status = Dataset()
        for status, answer in association.send_c_find(
            _identifier(level, keys), StudyRootQueryRetrieveInformationModelFind
        ):
            if status.get("Status") in _PENDING and answer is not None:
                answers.append(answer)
        self._check(status, "C-FIND")
        return answers

    def _check(self, status: Dataset, operation: str) -> None:
        """Raise ArchiveError if the final status of an operation is not success."""
        code = status.get("Status")
        if code is None or code >> 8 == 0xA7 or code == 0xB000:  # out of resources; some instances are missing
            raise self._interruption()
        if code == 0x0124:
            raise ArchiveUnauthorisedError(f"{self._address} does not allow {operation} (status 0124).")
        if code >> 12 == 0xC:
            raise ArchiveUnreachableError(f"{self._address} cannot process {operation} now (status {code:04X}).")
        if code != 0:
            raise ArchiveError(f"{self._address} refused {operation} (status {code:04X}, DICOM PS3.4).")

    def _interruption(self) -> ArchiveUnreachableError:
        return ArchiveUnreachableError(f"{self._address} stopped answering. Try again, or narrow the search.")

    @contextmanager
    def _query_association(self) -> Iterator[Association]:
        contexts = [build_context(StudyRootQueryRetrieveInformationModelFind, _PLAIN)]
        with self._association(contexts) as association:
            _require(association, StudyRootQueryRetrieveInformationModelFind, "C-FIND")
            yield association

    @contextmanager
    def _association(
        self,
        contexts: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation] | None = None,
        handlers: list[evt.EventHandlerType] | None = None,
    ) -> Iterator[Association]:
        entity = AE(self._access.ae_title)
        entity.connection_timeout, entity.acse_timeout = CONNECT_SECONDS, NEGOTIATION_SECONDS
        entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
        address = self._address
        try:
            association = entity.associate(
                address.host,
                address.port,
                contexts,
                address.ae_title,
                ext_neg=None if roles is None else [*roles],
                tls_args=self._tls,
                evt_handlers=handlers,
            )
        except OSError as error:
            raise ArchiveUnreachableError(f"{address} cannot be reached ({type(error).__name__}).") from None
        if association.is_rejected:
            raise _rejection(association, address, self._access.ae_title)
        if not association.is_established:
            secure = " with TLS, and that its certificate is trusted" if address.secure else ""
            raise ArchiveUnreachableError(
                f"{address} does not answer. Check the address, and that it is running{secure}."
            )
        try:
            yield association
        except (RuntimeError, AttributeError, ValueError):  # pynetdicom raises these after a lost connection
            if association.is_established:
                raise
            raise self._interruption() from None
        finally:
            if association.is_established:
                association.release()


def _require(association: Association, model: str, operation: str) -> None:
    if not any(context.abstract_syntax == model for context in association.accepted_contexts):
        raise ArchiveError(f"The archive does not offer {operation}. Use its DICOMweb address, or ask who runs it.")


def _rejection(association: Association, address: Address, ae_title: str) -> ArchiveError:
    """Return the error for a rejected association (DICOM PS3.8, table 9-21). Result 2 is transient."""
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0x02:
        return ArchiveUnreachableError(f"{address} takes no association now. Try again later.")
    source, reason = (None, None) if answer is None else (answer.result_source, answer.diagnostic)
    explanations: dict[tuple[int | None, int | None], str] = {
        (1, 3): f"it does not know the calling AE title {ae_title}: have it entered, or give another as ae_title",
        (1, 7): f"it is not called {address.ae_title}: check the AE title in the address",
    }
    return ArchiveUnauthorisedError(
        f"{address} refused the association: {explanations.get((source, reason), f'source {source}, reason {reason}')}."
    )


def _identifier(level: str, keys: dict[str, str | None]) -> Dataset:
    """Return the identifier of a query. A key of None requests its value."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value or "")
    return identifier
