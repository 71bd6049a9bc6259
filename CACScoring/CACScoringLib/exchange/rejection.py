"""Rejection of a superseded result, by which an archive hides its objects."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.sr.codedict import codes

from ..core.version import VERSION
from .source import MANUFACTURER, MODEL_NAME, SERIAL_NUMBER, derived_uid


def rejection_of(objects: Sequence[Dataset], reason: str) -> KeyObjectSelectionDocument:
    """Return the Key Object Selection that rejects objects of one study (PS3.16 TID 2010; IHE RAD, IOCM).

    Its UIDs follow from the objects, so that an archive that receives it again has it once.
    """
    title = codes.DCM.RejectedForPatientSafetyReasons
    uids = sorted(str(dataset.SOPInstanceUID) for dataset in objects)
    return KeyObjectSelectionDocument(
        evidence=objects,
        content=KeyObjectSelection(title, objects, description=reason),
        series_instance_uid=derived_uid("rejection series", *uids),
        series_number=1,
        series_description="CAC: superseded results",
        sop_instance_uid=derived_uid("rejection", *uids),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=VERSION,
        device_serial_number=SERIAL_NUMBER,
    )
