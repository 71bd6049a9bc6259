"""An archive by DIMSE (DICOM PS3.4 and PS3.7): C-FIND, C-GET and C-STORE. Nothing has to reach this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from .address import (
    Access,
    Address,
    ArchiveError,
    ArchiveUnauthorisedError,
    ArchiveUnreachableError,
    NoSuchSeriesError,
)
from .files import DicomFile
from .series import CT_CLASSES, FoundSeries, ImageFacts, SeriesFilter, found_series, image_facts, in_order, text_of

# pynetdicom would write what is asked and answered, names of patients among it, into the log of whoever sets one up.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

TIMEOUT_SECONDS = 10.0
"""To connect and to agree on an association."""

SILENCE_SECONDS = 120.0
"""How long an archive may take between two answers."""

RETRIEVED_CLASSES = (
    *CT_CLASSES,
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
)
"""What can be fetched: a C-GET names the classes before it begins, at most 128 contexts of them."""

_PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_COMPRESSED = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless, DeflatedExplicitVRLittleEndian]
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
        self._known: dict[tuple[str, str | None, str | None], tuple[str, list[FoundSeries]]] = {}

    def find_series(self, wanted: SeriesFilter) -> list[FoundSeries]:
        """Raises ArchiveError."""
        dates = wanted.date_range()
        keys = {
            "PatientID": wanted.patient_id,
            "StudyInstanceUID": wanted.study_uid,
            "StudyDate": None if dates is None else dates[0] if dates[0] == dates[1] else "-".join(dates),
            "ModalitiesInStudy": wanted.modality,
        }
        found = []
        with self._finding() as association:
            for study in self._find(association, "STUDY", {**dict.fromkeys(_STUDY_KEYS), **keys}):
                found += self._series_of(association, study, wanted)
        return in_order(found, wanted)

    def _series_of(self, association: Association, study: Dataset, wanted: SeriesFilter) -> list[FoundSeries]:
        """The series of a study, which are not asked for again while it has as many images as before."""
        images = text_of(study, "NumberOfStudyRelatedInstances")
        key = text_of(study, "StudyInstanceUID"), wanted.modality, wanted.series_uid
        before, found = self._known.get(key, ("", []))
        if images and images == before:
            return found

        def count(study_uid: str, series_uid: str) -> int:
            return len(self._instances(association, study_uid, series_uid))

        keys = {
            **dict.fromkeys(_SERIES_KEYS),
            "StudyInstanceUID": key[0],
            "Modality": wanted.modality,
            "SeriesInstanceUID": wanted.series_uid,
        }
        answers = [found_series(answer, study, count) for answer in self._find(association, "SERIES", keys)]
        found = [series for series in answers if series is not None]
        self._known[key] = images, found
        return found

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Raises ArchiveError."""
        with self._finding() as association:
            return {text_of(answer, "SOPInstanceUID") for answer in self._instances(association, study_uid, series_uid)}

    def image_facts(self, series: FoundSeries) -> ImageFacts:
        """Raises ArchiveError, NoSuchSeriesError."""
        with self._finding() as association:
            answers = self._instances(association, series.study_uid, series.series_uid)
        if not answers:
            raise NoSuchSeriesError("The archive has no such series. Check its UID.")
        return image_facts(answers[0])

    def retrieve(self, series: FoundSeries, receive: Callable[[bytes], None]) -> None:
        """Raises ArchiveError, NoSuchSeriesError, and what `receive` raises."""
        faults: list[Exception] = []

        def store(event: evt.Event) -> int:
            try:
                receive(event.encoded_dataset())
            except Exception as error:  # raised below: here pynetdicom would catch it
                faults.append(error)
                return 0xA700  # out of resources
            return 0x0000

        contexts = [build_context(StudyRootQueryRetrieveInformationModelGet, _PLAIN)]
        contexts += [build_context(uid, _PLAIN) for uid in RETRIEVED_CLASSES]
        contexts += [build_context(uid, syntax) for uid in CT_CLASSES for syntax in _COMPRESSED]
        roles = [build_role(uid, scp_role=True) for uid in RETRIEVED_CLASSES]
        asked = _identifier("SERIES", {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid})
        with self._associated(contexts, roles, [(evt.EVT_C_STORE, store)]) as association:
            _need(association, StudyRootQueryRetrieveInformationModelGet, "C-GET")
            last = Dataset()
            for status, _ in association.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet):
                last = status
                if faults:
                    association.abort()
                    raise faults[0]
        if faults:
            raise faults[0]
        self._check(last, "C-GET")
        if not last.get("NumberOfCompletedSuboperations") and not last.get("NumberOfFailedSuboperations"):
            raise NoSuchSeriesError("The archive has no such series. Check its UID.")

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Raises ArchiveError."""
        refused: dict[str, str] = {}
        kinds = list(dict.fromkeys((file.sop_class, file.transfer_syntax) for file in files))
        for start in range(0, len(kinds), _CONTEXTS):
            part = kinds[start : start + _CONTEXTS]
            with self._associated([build_context(*kind) for kind in part]) as association:
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
        """Why an instance was refused; None where it is stored (0000, or with a warning Bxxx)."""
        if not association.is_established:
            raise self._silent()
        status = association.send_c_store(file.path).get("Status")
        if status is None:
            raise self._silent()
        return None if status == 0 or status >> 12 == 0xB else f"status {status:04X} (DICOM PS3.4, table B.2-1)"

    def _instances(self, association: Association, study_uid: str, series_uid: str) -> list[Dataset]:
        keys = dict.fromkeys(("SOPInstanceUID", "SOPClassUID", "ImageType", "SliceThickness"))
        own = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        return self._find(association, "IMAGE", {**keys, **own})

    def _find(self, association: Association, level: str, keys: dict[str, str | None]) -> list[Dataset]:
        if not association.is_established:
            raise self._silent()
        answers = []
        status = Dataset()
        for status, answer in association.send_c_find(
            _identifier(level, keys), StudyRootQueryRetrieveInformationModelFind
        ):
            if status.get("Status") in _PENDING and answer is not None:
                answers.append(answer)
        self._check(status, "C-FIND")
        return answers

    def _check(self, status: Dataset, what: str) -> None:
        """Raises ArchiveError where the last status of an operation is not that of success."""
        code = status.get("Status")
        if code is None or code >> 8 == 0xA7 or code == 0xB000:  # out of resources; some instances did not come
            raise self._silent()
        if code == 0x0124:
            raise ArchiveUnauthorisedError(f"{self._address} does not allow {what} (status 0124).")
        if code >> 12 == 0xC:
            raise ArchiveUnreachableError(f"{self._address} cannot process {what} now (status {code:04X}).")
        if code != 0:
            raise ArchiveError(f"{self._address} refused {what} (status {code:04X}, DICOM PS3.4).")

    def _silent(self) -> ArchiveUnreachableError:
        return ArchiveUnreachableError(f"{self._address} stopped answering in the middle. Try again.")

    @contextmanager
    def _finding(self) -> Iterator[Association]:
        with self._associated([build_context(StudyRootQueryRetrieveInformationModelFind, _PLAIN)]) as association:
            _need(association, StudyRootQueryRetrieveInformationModelFind, "C-FIND")
            yield association

    @contextmanager
    def _associated(
        self, contexts: list[PresentationContext], roles: list | None = None, handlers: list | None = None
    ) -> Iterator[Association]:
        entity = AE(self._access.ae_title)
        entity.connection_timeout = entity.acse_timeout = TIMEOUT_SECONDS
        entity.dimse_timeout = entity.network_timeout = SILENCE_SECONDS
        where = self._address
        try:
            association = entity.associate(
                where.host,
                where.port,
                contexts,
                where.ae_title,
                ext_neg=roles,
                tls_args=self._tls,
                evt_handlers=handlers,
            )
        except OSError as error:
            raise ArchiveUnreachableError(f"{where} cannot be reached ({type(error).__name__}).") from None
        if association.is_rejected:
            raise _rejection(association, where, self._access.ae_title)
        if not association.is_established:
            secure = " with TLS, and that its certificate is trusted" if where.secure else ""
            raise ArchiveUnreachableError(
                f"{where} does not answer. Check the address, and that it is running{secure}."
            )
        try:
            yield association
        except (RuntimeError, AttributeError, ValueError):  # as pynetdicom answers to what was lost in between
            if association.is_established:
                raise
            raise self._silent() from None
        finally:
            if association.is_established:
                association.release()


def _need(association: Association, model: str, what: str) -> None:
    if not any(context.abstract_syntax == model for context in association.accepted_contexts):
        raise ArchiveError(f"The archive does not offer {what}. Use its DICOMweb address, or ask who runs it.")


def _rejection(association: Association, where: Address, own: str) -> ArchiveError:
    """DICOM PS3.8, table 9-21. Result 2 is for a while only."""
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0x02:
        return ArchiveUnreachableError(f"{where} takes no association now. Try again later.")
    source, reason = (None, None) if answer is None else (answer.result_source, answer.diagnostic)
    known = {
        (1, 3): f"it does not know the calling AE title {own}: have it entered, or give another as ae_title",
        (1, 7): f"it is not called {where.ae_title}: check the AE title in the address",
    }
    return ArchiveUnauthorisedError(
        f"{where} refused the association: {known.get((source, reason), f'source {source}, reason {reason}')}."
    )


def _identifier(level: str, keys: dict[str, str | None]) -> Dataset:
    """What is asked. None asks for the value of a key; what is not asked by any text is no wildcard in it."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value or "")
    return identifier
