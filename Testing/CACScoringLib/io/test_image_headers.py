"""Headers that would end the process in ITK are refused before ITK reads them."""

import subprocess
import sys

import pytest

from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.io.image_files import read_image
from CACScoringLib.io.voxel_checks import MAX_CHARACTERS, check_header

META = """ObjectType = Image
NDims = 3
BinaryData = True
DimSize = 6 5 4
ElementSpacing = 1 1 1
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: raw\n\n"
LONG = "x" * 5000
BROKEN = {
    **{f"NDims {n}": META.replace("NDims = 3", f"NDims = {n}") for n in ("100", "-1", "0", "6", "1e300", "2147483648")},
    **{f"DimSize {n}": META.replace("6 5 4", n) for n in ("6 5", "6 5 4 1", "6 5 -4", "6 5 0", "6 5 x", "1 " * 300)},
    "many axes": META.replace("NDims = 3", "NDims = 100").replace("ElementSpacing = 1 1 1\n", ""),
    "long name": META.replace("NDims", f"Name = {'x' * 300}\nNDims"),
    "no voxels": META.replace("ElementDataFile", "Elements"),
    **{f"dimension {n}": NRRD.replace("dimension: 3", f"dimension: {n}") for n in ("15", "16", "100", "-1", "0", "")},
    **{f"sizes {n}": NRRD.replace("6 5 4", n) for n in ("6 5", "6 5 4 1", "6 5 -4", "1 " * 3000)},
    "15 axes": NRRD.replace("dimension: 3", "dimension: 15").replace("6 5 4", "120" + " 1" * 14),
    **{
        field: NRRD.replace("encoding", f"{field}: {value * 1000}\nencoding")
        for field, value in {
            "kinds": "domain ",
            "units": '"mm" ',
            "labels": '"a" ',
            "spacings": "1 ",
            "space directions": "(1,0,0) ",
            "measurement frame": "(1,0,0) ",
            "space origin": "(1,0,0) ",
            "data file": "x",
            "endian": "x",
        }.items()
    },
    "unknown field": NRRD.replace("encoding", f"{LONG}: 1\nencoding"),
    "no field": NRRD.replace("encoding", f"{LONG}\nencoding"),
}
"""Headers by what is wrong with them."""

READ = """
import sys
from pathlib import Path
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.io.image_files import read_image
for path in map(Path, sys.argv[1:]):
    try:
        read_image(path)
    except UnreadableError as error:
        print(error)
"""


def write(folder, header, name="scan"):
    path = folder / f"{name}.{'nrrd' if header.startswith('NRRD') else 'mha'}"
    path.write_bytes(header.encode() + bytes(120))
    return path


def test_no_header_ends_the_process(tmp_path):
    paths = [write(tmp_path, header, f"scan{n}") for n, header in enumerate(BROKEN.values())]
    result = subprocess.run([sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"The header of {path.name} is damaged (")


@pytest.mark.parametrize("ending", ["nrrd", "mha", "MHD", "txt"])
def test_the_format_follows_from_content_or_ending(tmp_path, ending):
    """ITK knows NRRD by its first bytes."""
    path = tmp_path / f"scan.{ending}"
    path.write_text(BROKEN["15 axes"], encoding="utf-8")
    with pytest.raises(UnreadableError, match="is damaged"):
        check_header(path)


@pytest.mark.parametrize(
    "header",
    [
        META,
        META.replace("6 5 4", "6 5 4 ").replace("NDims", "0008|0060 = CT\nNRRD_kinds[0] = domain\nNDims"),
        META.replace("NDims", f"0020|4000 = {LONG}\nName = {'x' * MAX_CHARACTERS}\nNDims"),
        META.replace(" = ", ":"),
        NRRD,
        NRRD.replace("encoding", f"# {LONG}\ncontent: {LONG}\nSegment0_Tags:={LONG}\nencoding"),
        NRRD.replace("encoding", 'space: left-posterior-superior\nspace units: "mm" "mm" "mm"\nencoding'),
    ],
)
def test_sound_headers_pass(tmp_path, header):
    check_header(write(tmp_path, header))


def test_long_tables_of_segments(tmp_path):
    """3D Slicer writes them as pairs of key and value, longer than any field."""
    path = write(tmp_path, NRRD.replace("encoding", f"Segment0_Tags:={LONG * 20}\nencoding"))
    assert read_image(path).GetMetaData("Segment0_Tags") == LONG * 20
