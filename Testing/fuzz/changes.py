"""Random changes of files. Each does something to a file or folder and says what, for the report."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pydicom
from dicom_files import save

Change = Callable[[Path, Random], str]

HOSTILE = (
    "",
    " ",
    "nan",
    "-1",
    "1e999",
    "../../x",
    "/etc/passwd",
    "=1+1",
    "<script>alert(1)</script>",
    "a\\b",
    "\x00\x1b[31m",
    "ä" * 300,
)
NUMBERS = (0, -1, 1e-30, 1e30, math.nan, math.inf, 2**31, 0.5)


def changed_bytes(path: Path, random: Random) -> str:
    """Flip, insert, delete, fill or repeat bytes, most often near the beginning."""
    data = bytearray(path.read_bytes())
    end = len(data) if random.random() < 0.3 else min(len(data), 2000)
    at, length = random.randrange(max(1, end)), random.choice((1, 1, 2, 4, 20, 300))
    kind = random.choice(("flip", "flip", "insert", "delete", "fill", "repeat", "cut"))
    if kind == "flip":
        for place in range(at, min(at + min(length, 4), len(data))):
            data[place] ^= 1 << random.randrange(8)
    elif kind == "insert":
        data[at:at] = random.randbytes(length)
    elif kind == "delete":
        del data[at : at + length]
    elif kind == "fill":
        data[at : at + length] = bytes([random.choice((0, 0xFF, 0x20))]) * len(data[at : at + length])
    elif kind == "repeat":
        data[at:at] = data[at : at + length]
    else:
        del data[at:]
    path.write_bytes(data)
    return f"{kind} {length} at {at} of {path.name}"


def changed_elements(path: Path, random: Random) -> str:
    """Delete, empty, scale or spoil elements of one DICOM file."""
    dataset, said = pydicom.dcmread(path), []
    for _ in range(random.choice((1, 1, 2))):
        element = random.choice([e for e in dataset if e.keyword and e.keyword != "PixelData"])
        kind = random.choice(("delete", "empty", "scale", "spoil"))
        said.append(f"{kind} {element.keyword}")
        if kind == "delete":
            del dataset[element.tag]
        elif kind == "empty":
            element.value = None
        elif kind == "scale" and element.VR in ("DS", "IS", "US") and not element.is_empty:
            values = list(element.value) if element.VM > 1 else [element.value]
            values[random.randrange(len(values))] *= random.choice((-1, 0, 1.001, 1.1, 2, 10))
            values = [int(v) if element.VR != "DS" else float(f"{v:.8g}") for v in values]
            element.value = [abs(v) % 65536 for v in values] if element.VR == "US" else values
        elif element.VR in ("LO", "SH", "CS", "PN", "LT", "ST", "UT", "UI", "DS", "IS", "AS", "DA", "TM"):
            element._value = random.choice(HOSTILE)
    try:
        save(dataset, path)
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError):
        return changed_bytes(path, random)  # pydicom does not write such a value
    return f"{', '.join(said)} in {path.name}"


def changed_series(folder: Path, random: Random) -> str:
    """Remove, double, exchange or rename slices, or take over an element of another slice."""
    files = sorted(folder.glob("*.dcm"))
    first, second = random.sample(files, 2)
    kind = random.choice(("remove", "remove all but few", "double", "exchange pixels", "take over", "shuffle", "other"))
    if kind == "remove":
        first.unlink()
    elif kind == "remove all but few":
        for file in random.sample(files, len(files) - random.randrange(4)):
            file.unlink()
    elif kind == "double":
        shutil.copy(first, folder / "copy.dcm")
    elif kind == "shuffle":
        names = random.sample(files, len(files))
        for file in files:
            file.rename(file.with_suffix(".x"))
        for file, name in zip(files, names, strict=True):
            file.with_suffix(".x").rename(name)
    else:
        one, other = pydicom.dcmread(first), pydicom.dcmread(second)
        if kind == "exchange pixels":
            one.PixelData, other.PixelData = other.PixelData, one.PixelData
            save(other, second)
        elif kind == "take over":
            keyword = random.choice([e.keyword for e in other if e.keyword and e.keyword in one])
            one[keyword] = other[keyword]
            kind += f" {keyword}"
        else:
            one.SeriesInstanceUID = "1.2.3"
        save(one, first)
    return f"{kind}: {first.name}, {second.name}"


def changed_json(path: Path, random: Random) -> str:
    """Delete, exchange or spoil values somewhere in a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    said = []
    for _ in range(random.choice((1, 1, 1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key, name = random.choice(places)
        new = random.choice((*HOSTILE, *NUMBERS, None, True, [], {}, [[]], {"a": 1}, "delete", "delete"))
        if new == "delete":
            del holder[key]
        else:
            holder[key] = new
        said.append(f"{name} = {str(new)[:20]!r}")
    path.write_text(json.dumps(content), encoding="utf-8")
    return f"{'; '.join(said)} in {path.name}"


def _places(value: object, name: str = "", depth: int = 0):
    """Every key of every object and list, with its holder and a name to tell it by."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:50]:
        yield value, key, f"{name}/{key}"
        if depth < 8:
            yield from _places(inner, f"{name}/{key}", depth + 1)


def changed_table(path: Path, random: Random) -> str:
    """Spoil, delete or repeat cells, rows or columns of a CSV file."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row = random.randrange(len(rows))
    column = random.randrange(len(rows[row]))
    kind = random.choice(("spoil", "spoil", "delete row", "repeat row", "delete cell", "another cell", "no end"))
    if kind == "spoil":
        rows[row][column] = random.choice((*HOSTILE, *map(str, NUMBERS), '"', '"a\n'))
    elif kind == "delete row":
        del rows[row]
    elif kind == "repeat row":
        rows.insert(row, list(rows[row]))
    elif kind == "delete cell":
        del rows[row][column]
    elif kind == "another cell":
        rows[row].insert(column, random.choice(HOSTILE))
    path.write_text("\n".join(map(",".join, rows)) + "\n" * (kind != "no end"), encoding="utf-8")
    return f"{kind} at row {row}, column {column} of {path.name}"


def either(*changes: Change) -> Change:
    """One of several changes."""
    return lambda path, random: random.choice(changes)(path, random)
