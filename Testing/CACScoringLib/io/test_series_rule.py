"""Rule that chooses among several series: each property of the scoring protocol, its order, and what it leaves open."""

import numpy as np
import pytest
from dicom_files import chest_hu, write_series
from reading_checks import refuses

from CACScoringLib.core.errors import SeriesChoiceError
from CACScoringLib.io.dicom import read_slice
from CACScoringLib.io.reading import read_ct
from CACScoringLib.io.series import series_facts
from CACScoringLib.io.series_rule import is_soft_kernel

STUDY = {"StudyInstanceUID": "1.2"}
SPACING_MM = (8.0, 8.0, 3.0)
"""Pixels so wide that 42 of them are a full field of view."""


def write(folder, number, slices=28, spacing_mm=SPACING_MM, **tags):
    """Write a series of a study: 28 slices of 3 mm with a soft kernel unless stated otherwise."""
    hu = np.resize(chest_hu(6, 12, 42), (slices, 12, 42))
    hu[:, 0, 0] = -1000 + np.arange(slices)
    return write_series(folder / str(number), hu, spacing_mm=spacing_mm, tags={**STUDY, "SeriesNumber": number, **tags})


def choice_in(folder, series=None):
    """Number of the chosen series, and the text of the warning about the choice."""
    scan = read_ct(folder, series)
    texts = [warning.message for warning in scan.warnings if warning.code == "series-chosen"]
    return scan.acquisition.series_number, " ".join(texts)


@pytest.mark.parametrize(
    ("kernel", "is_soft"),
    [
        *(("B35f", True), ("B30s", True), ("Qr36d\\3", True), ("I26f", True), ("Br44", True), ("B45f", True)),
        *(("B50f", False), ("B70f", False), ("Bl57d", False), ("Br64", False), ("H60s", False)),
        *(("STANDARD", True), ("soft", True), ("LUNG", False), ("BONEPLUS", False), ("EDGE", False)),
        *(("B", True), ("XCA", True), ("C", True), ("D", False), ("YC", False), ("L", False)),
        *(("FC08", True), ("FC13", True), ("FC43", True), ("FC51", False), ("FC30", False)),
        *((None, None), ("", None), ("unheard of", None)),
    ],
)
def test_kernels_of_all_manufacturers(kernel, is_soft):
    assert is_soft_kernel(kernel) is is_soft


@pytest.mark.long
@pytest.mark.parametrize(
    "tags",
    [
        *({"ConvolutionKernel": "B70f"}, {"ConvolutionKernel": "unheard of"}, {"SliceThickness": 1.0}),
        *({"SliceThickness": 5.0}, {"ContrastBolusAgent": "Ultravist 370"}),
        *({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, {"NominalPercentageOfCardiacPhase": 40}),
        *({"spacing_mm": (4.0, 4.0, 3.0)}, {"slices": 20}),
    ],
    ids=str,
)
def test_each_property_of_the_protocol_decides(tmp_path, tags):
    number = 2 + 2 * (len(str(tags)) % 2)  # before and behind the best one
    write(tmp_path, 3)
    write(tmp_path, number, **tags)
    best, message = choice_in(tmp_path)
    assert best == 3
    assert "is scored: 3 (CaSc 3.0, soft kernel B35f, 3 mm thick, field of view 336 mm, " in message
    assert f"Not scored: {number} (" in message
    assert choice_in(tmp_path, str(number)) == (number, ""), "--series overrides"


@pytest.mark.long
def test_phase_of_a_series_chosen_by_uid(tmp_path):
    for phase in (30, 70):
        write(tmp_path, phase, SeriesInstanceUID="1.2.6", SeriesNumber=6, NominalPercentageOfCardiacPhase=phase)
    assert "is scored: 6.2 (" in choice_in(tmp_path, "1.2.6")[1]
    assert choice_in(tmp_path, "6.1") == (6, "")


@pytest.mark.long
def test_kernel_counts_before_thickness_and_thickness_before_field(tmp_path):
    write(tmp_path, 2, ConvolutionKernel="B70f")
    write(tmp_path, 3, slices=84, spacing_mm=(4.0, 4.0, 1.0))
    assert choice_in(tmp_path)[0] == 3
    write(tmp_path, 4, slices=42, spacing_mm=(4.0, 4.0, 2.0))
    assert choice_in(tmp_path)[0] == 4
    write(tmp_path, 5, slices=84, spacing_mm=(8.0, 8.0, 1.0))
    assert choice_in(tmp_path)[0] == 4


@pytest.mark.long
def test_a_series_with_missing_slices_is_left_out(tmp_path):
    write(tmp_path, 3, ConvolutionKernel="B70f")
    paths = write(tmp_path, 4)
    for path in paths[10:13]:
        path.unlink()
    best, message = choice_in(tmp_path)
    assert best == 3
    assert "): The slices are unevenly spaced" in message or "missing" in message


@pytest.mark.long
def test_a_series_of_a_single_slice_is_left_out(tmp_path):
    write(tmp_path, 3)
    for number in (4, 5):
        write(tmp_path, number, slices=1, ConvolutionKernel="B70f")
    best, message = choice_in(tmp_path)
    assert best == 3
    assert "It has 1 slice." in message


@pytest.mark.long
@pytest.mark.parametrize(
    "tags",
    [{}, {"KVP": 100}, {"StudyInstanceUID": "1.3", "ConvolutionKernel": "B70f"}, {"SliceThickness": 2.5}],
    ids=["equal", "voltage", "another study", "both of the protocol"],
)
def test_no_choice_without_a_reason(tmp_path, tags):
    write(tmp_path, 3)
    write(tmp_path, 4, **tags)
    refuses(tmp_path, SeriesChoiceError, "2 CT series")


def test_no_choice_of_a_part_of_a_scan(tmp_path):
    """A long part is no better than the whole."""
    shared = {"FrameOfReferenceUID": "1.3"}
    write(tmp_path, 3, **shared)
    write_series(
        tmp_path / "4",
        np.resize(chest_hu(6, 12, 42), (10, 12, 42)),
        spacing_mm=SPACING_MM,
        origin_mm=(-100.0, -120.0, 114.0),
        tags={**STUDY, **shared, "SeriesNumber": 4},
    )
    refuses(tmp_path, SeriesChoiceError, "'all'")
    assert len(read_ct(tmp_path, "all").hu) == 38


@pytest.mark.parametrize(
    "tags", [{"RescaleType": "ED"}, {"RescaleSlope": 0}, {"Manufacturer": "SIEMENS", "ConvolutionKernel": "Sd36f"}]
)
def test_a_series_whose_headers_state_no_hu_has_a_fault(tmp_path, tags):
    files = write(tmp_path, 1, **tags)
    (facts,) = series_facts([read_slice(file) for file in files])
    assert facts.fault


def test_a_kernel_of_electron_density_is_chosen_last(tmp_path):
    write(tmp_path, 1, Manufacturer="SIEMENS", ConvolutionKernel="Sd36f")
    write(tmp_path, 2, Manufacturer="SIEMENS", ConvolutionKernel="Br64")
    assert choice_in(tmp_path)[0] == 2
