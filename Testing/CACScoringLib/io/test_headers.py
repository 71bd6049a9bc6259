"""Warnings from the headers of a stack."""

import io
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, only, write_series
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEGLSNearLossless, generate_uid
from reading_checks import codes, reads, refuses

from CACScoringLib.core.errors import NotHounsfieldError
from CACScoringLib.io.headers import computed_warnings
from CACScoringLib.io.reading import read_ct

COMPUTED = (
    "VNCa 80 %, calcium suppressed, CaSupp 50, PURE lumen, PureCalcium, bone removed, BoneSubtraction, tMIP, "
    "4D average, electron density, Rho/Z, effective Z, EffZ, perfusion, CBF, synthetic CT, sCT, Mono+ 55, 70keV, "
    "Water(Iodine), Gout, hard plaques, decalcified, iodine map, RhoZ, MRCAT, chest perfusion, no calcium, "
    "Mean 4D, HAP(Water), maximum intensity projection"
)
"""Series of computed images."""
USUAL = (
    "Ca-Sc 3mm, Smart Score, AIDR 3D, ASiR-V 50%, iDose4, SAFIRE 3 Thorax, CaScore AX MPR, CaSc 3.0 B35f, "
    "Ca Score 3.0 Qr36, CHEST W/O, Chest wo contrast, Lung 1.0 B60f, HEART CALCIUM SCORING, CTAC 3.0 HD, "
    "Thorax nativ 2,0 mm Br40, SmartScore 2.5mm, Axial 5mm Soft tissue, CACS, CARDIAC DIAST 70%"
)
"""Usual reconstructions."""
OTHER_MEANINGS = (
    "HAP 3.0 B30f, PERFUSIONIST present, SYNTHES plate, MAXIMUM INSPIRATION, NO CALCIUM PRIOR, "
    "no calcium score before, AVERAGE DOSE, mean arterial phase, oral water, spine fusion, pulmonary edema, "
    "noncalcified nodule, renal stone protocol, mechanical ventilation, removal of lead, mono phase"
)
"""Series in whose descriptions words of computed images mean something else."""


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"KVP": 100, "ConvolutionKernel": "B70f"}, "B35f, B70f"),
        ({"BitsStored": 12, "HighBit": 11}, "bits of a pixel 12, 16"),
        ({"StudyDate": "20200102", "PatientAge": "061Y", "PatientSex": "F"}, "study dates"),
    ],
)
def test_a_slice_that_differs_causes_a_warning(tmp_path, tags, text):
    write_series(tmp_path, chest_hu(), edit=only(2, **tags))
    assert text in reads(tmp_path, chest_hu(), ["mixed-acquisition"]).warnings[0].message


class TestHeaders:
    """Headers of images, besides geometry and values."""

    @pytest.mark.parametrize(
        ("tags", "code"),
        [
            ({"BurnedInAnnotation": "YES"}, "burned-in"),
            ({"LossyImageCompression": "01"}, "lossy-compression"),
            ({"ImageType": ["DERIVED", "SECONDARY", "VOLUME", "MAT_REMOVED"]}, "derived-image"),
            ({"SeriesDescription": "Thorax MIP 10 mm"}, "derived-image"),
            ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "reformatted-image"),
            ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "derived-image"),
            ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "SeriesDescription": "Thorax 3.0 B30f"}, None),
            ({"SeriesDescription": "CaScore AX MPR"}, None),
            ({"SeriesDescription": "Chest MVCT"}, "cone-beam"),
            ({"PatientPosition": "HFP"}, None),
        ],
    )
    def test_images_that_headers_cast_doubt_on(self, tmp_path, tags, code):
        write_series(tmp_path, chest_hu(), tags=tags)
        assert codes(read_ct(tmp_path)) == ([code] if code else [])

    @pytest.mark.parametrize("kind", ["ORIGINAL PRIMARY AXIAL", "DERIVED SECONDARY AXIAL", "DERIVED PRIMARY AXIAL"])
    def test_descriptions_of_computed_images_are_doubted(self, kind):
        """Severely, but of images whose type says that they are original."""

        def severe(name):
            text = {"ImageType": kind, "SeriesDescription": name}.get
            return [warning.severe for warning in computed_warnings([SimpleNamespace(text=text)])]

        is_original = kind.startswith("ORIGINAL")
        assert [name for name in COMPUTED.split(", ") if severe(name) != [not is_original]] == []
        assert [name for name in USUAL.split(", ") if severe(name)] == []
        mild = [] if is_original else [[False]]
        assert [name for name in OTHER_MEANINGS.split(", ") if severe(name) not in ([], *mild)] == []

    @pytest.mark.parametrize("name", ["Thorax xyz", ""])
    def test_derived_images_of_unknown_description_are_doubted_mildly(self, name):
        text = {"ImageType": "DERIVED SECONDARY AXIAL", "SeriesDescription": name}.get
        (warning,) = computed_warnings([SimpleNamespace(text=text)])
        assert (warning.code, warning.severe) == ("derived-image", False)

    @pytest.mark.parametrize(
        ("keyword", "values", "code"),
        [
            ("NominalPercentageOfCardiacPhase", [40, 40, 40, 75, 75, 75], ["cardiac-phases"]),
            ("TriggerTime", [300, 300, 300, 700, 700, 700], ["cardiac-phases"]),
            ("TriggerTime", [640, 655, 700, 690, 710, 660], []),
        ],
    )
    def test_cardiac_phases_mixed_in_a_stack(self, tmp_path, keyword, values, code):
        write_series(tmp_path, chest_hu(), edit=lambda ds, k: setattr(ds, keyword, values[k]))
        assert codes(read_ct(tmp_path)) == code

    def test_a_transfer_syntax_that_loses_detail(self, tmp_path):
        """No element states the loss; near-lossless JPEG-LS may lose nothing, but that is unknown."""

        def compress(ds, _):
            ds.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
            ds.pop("LossyImageCompression", None)

        hu = chest_hu(rows=32, columns=32)
        write_series(tmp_path, hu, edit=compress)
        scan = read_ct(tmp_path)
        assert (codes(scan), abs(scan.hu - hu).max()) == (["lossy-compression"], 2)

    @pytest.mark.parametrize("is_lossy", [True, False])
    def test_jpeg_2000_that_loses_detail(self, tmp_path, is_lossy):
        """No element states the loss, and the transfer syntax allows both: the codestream decides."""

        def compress(ds, _):
            stream = io.BytesIO()
            image = Image.fromarray(np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns))
            image.save(stream, "JPEG2000", irreversible=is_lossy, no_jp2=True)
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = JPEG2000
            ds.PixelData = encapsulate([stream.getvalue()])

        write_series(tmp_path, chest_hu(rows=32, columns=32), edit=compress)
        assert ("lossy-compression" in codes(read_ct(tmp_path))) == is_lossy


def numbered(k, *, pause_s=0, number=None, **tags):
    """Acquisition number and time of slice k of six, of which the upper three are another acquisition."""
    second = k >= 3
    time = f"1000{0:02d}" if not second else f"{10 + pause_s // 3600:02d}{pause_s // 60 % 60:02d}{pause_s % 60:02d}"
    return {"AcquisitionNumber": number or 1 + second, "AcquisitionTime": time, **tags}


def edited(tags_of):
    def edit(ds, k):
        for keyword, value in tags_of(k).items():
            setattr(ds, keyword, value)

    return edit


UIDS = [generate_uid() for _ in range(2)]


class TestStack:
    """Warnings that depend on several slices."""

    @pytest.mark.parametrize(
        ("tags_of", "code"),
        [
            (lambda k: {"FrameOfReferenceUID": UIDS[k // 3]}, "several-acquisitions"),
            (lambda k: numbered(k, pause_s=60), None),
            (lambda k: numbered(k, pause_s=61), "several-acquisitions"),
            (lambda k: numbered(k, pause_s=600, number=1), None),
            (
                lambda k: {"AcquisitionNumber": k, "AcquisitionTime": ("235930", "000231")[k // 3]},
                "several-acquisitions",
            ),
            (lambda k: {"AcquisitionTime": ("234500.5", "000010.25")[k // 3], "AcquisitionDate": "20240130"}, None),
            (
                lambda k: {"AcquisitionNumber": 1, "AcquisitionTime": "100000", "AcquisitionDate": f"2024013{k // 3}"},
                "several-acquisitions",
            ),
            (lambda k: {"ManufacturerModelName": "On-Board Imager"}, "cone-beam"),
            (lambda k: {"SeriesDescription": "Lobith, robot"}, None),
            (lambda k: numbered(k, AcquisitionTime="noon"), None),
            (
                lambda k: {"AcquisitionNumber": k // 3, "AcquisitionDateTime": f"2024013{k // 3}120000"},
                "several-acquisitions",
            ),
            (lambda k: {"ImagesInAcquisition": 4}, None),
            (lambda k: {"AcquisitionNumber": k // 3, "ImagesInAcquisition": 3}, None),
            (lambda k: {"AcquisitionNumber": k // 3, "ImagesInAcquisition": 4}, "images-missing"),
            (lambda k: {"SOPInstanceUID": UIDS[0]}, "uids-repeated"),
            # 14 columns of 0.7 mm, 12 rows of 0.8 mm
            (lambda k: {"ReconstructionDiameter": 9.55}, None),
            (lambda k: {"ReconstructionDiameter": 9.45}, "pixel-size-implausible"),
            (lambda k: {"ReconstructionDiameter": 10.2}, "pixel-size-implausible"),
        ],
    )
    def test_doubts(self, tmp_path, tags_of, code):
        write_series(tmp_path, chest_hu(), edit=edited(tags_of))
        assert codes(read_ct(tmp_path)) == ([code] if code else [])

    def test_the_number_of_missing_images_is_named(self, tmp_path):
        for path in write_series(tmp_path, chest_hu(), tags={"ImagesInAcquisition": 6})[4:]:
            path.unlink()
        assert "2 may be missing" in reads(tmp_path, chest_hu()[:4], ["images-missing"]).warnings[0].message


@pytest.mark.parametrize("offset", [0, 24])
def test_a_modality_lut_must_agree_with_the_rescale(tmp_path, offset):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096) - 1024 + offset).astype("<i2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"

    def edit(ds, _):
        ds.ModalityLUTSequence = [table]

    write_series(tmp_path, chest_hu(), edit=edit)
    if offset:
        refuses(tmp_path, NotHounsfieldError, "Modality LUT")
    else:
        reads(tmp_path, chest_hu())


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": 1e300}, {"RescaleIntercept": "9" * 16}, {"RescaleIntercept": -1e300}]
)
def test_an_impossible_rescale_is_refused(tmp_path, tags):
    write_series(tmp_path, chest_hu(), tags=tags)
    refuses(tmp_path, NotHounsfieldError, r"stated: .*slice000")


@pytest.mark.parametrize("kernel", ["Sd36f", ["Sd40d", "2"]])
def test_a_kernel_of_electron_density_is_refused_although_the_values_are_called_hu(tmp_path, kernel):
    write_series(
        tmp_path, chest_hu(), tags={"Manufacturer": "SIEMENS", "ConvolutionKernel": kernel, "RescaleType": "HU"}
    )
    refuses(tmp_path, NotHounsfieldError, "electron density")


@pytest.mark.parametrize(
    ("position", "orientation", "is_warned"),
    [
        *(("HFS", (1, 0, 0, 0, 1, 0), False), ("HFS", (-1, 0, 0, 0, 1, 0), True)),
        *(("FFS", (1, 0, 0, 0, -1, 0), True), ("FFS", (-1, 0, 0, 0, 1, 0), False)),
        ("HFS", (0.8, 0.6, 0, -0.6, 0.8, 0), False),  # turned by 37° in the slice
        ("HFS", (0.28, 0.96, 0, -0.96, 0.28, 0), True),  # by 74°
        ("HFS", (-0.8, 0, 0.6, 0, 1, 0), False),  # not axial
        *(("HFS", (1, 0, 0, 0, -0.854, 0.52), False), ("HFS", (1, 0, 0, 0, -0.88, 0.475), True)),
    ],
)
def test_orientation_of_a_supine_patient(tmp_path, position, orientation, is_warned):
    rows, columns = (np.divide(part, np.linalg.norm(part)) for part in (orientation[:3], orientation[3:]))
    write_series(tmp_path, chest_hu(), orientation=(*rows, *columns), tags={"PatientPosition": position})
    assert ("patient-position" in codes(read_ct(tmp_path))) == is_warned
