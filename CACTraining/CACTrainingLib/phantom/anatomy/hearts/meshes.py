"""Meshes of real hearts as their collections publish them, in one coordinate system and under one set of names.

Both collections are free under CC BY 4.0: the Visible Human hearts of the HuBMAP Human Reference Atlas
(github.com/hubmapconsortium/ccf-3d-reference-object-library, VH_Male/v1.2 and VH_Female/v1.2) and the Toronto Heart
Atlas (github.com/tgh-apil/TorontoHeartAtlas). Hearts of one's own are read in the latter's form: a file
allparts_NAME.obj with six closed surfaces of blood, its objects lv, rv, la, ra, aorta and pulmonary_artery, in mm, X to
the patient's right, Y up, Z backward.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

VISIBLE_HUMANS = ("VH_M", "VH_F")
TORONTO = ("2018012-01Aortalowres", "2018013-01AortaLowres", "2018014-01Aortalowres", "2018015-01Aortalowres")
TORONTO += ("2018016-01Aortalowres",)
_TORONTO_PARTS = {
    "ao": "aorta",
    "aorta": "aorta",
    "la": "la",
    "left_atrium": "la",
    "lv": "lv",
    "left_ventricle": "lv",
    "pa": "pulmonary",
    "pulmonary_artery": "pulmonary",
    "ra": "ra",
    "right_atrium": "ra",
    "rv": "rv",
    "right_ventricle": "rv",
}
_BLOOD_FILE = re.compile(rf"(?:allparts_(\S+)|({'|'.join(TORONTO)}))\.obj(?:\.gz)?")
_POSITION, _COMPONENT = 5126, {5121: np.uint8, 5123: np.uint16, 5125: np.uint32}


class MeshError(Exception):
    """A mesh is missing or not what its name says. The message says which, and where it comes from."""


@dataclass(frozen=True)
class Mesh:
    """vertices_mm: float64 [n, 3], LPS. faces: int64 [m, 3]."""

    vertices_mm: np.ndarray
    faces: np.ndarray

    @property
    def corners_mm(self) -> np.ndarray:
        """[m, 3 corners, 3]."""
        return self.vertices_mm[self.faces]


def hearts_in(folder: Path) -> tuple[tuple[str, ...], dict[str, Path]]:
    """The Visible Humans' hearts that a folder holds, and by name the files of hearts of which it has the blood.

    Raises MeshError for a folder without a heart that has arteries.
    """
    humans = tuple(name for name in VISIBLE_HUMANS if any(Path(folder).rglob(f"{name}_*Heart.glb")))
    if not humans:
        _found(folder, f"{VISIBLE_HUMANS[0]}_Heart.glb")
    files = {}
    for path in sorted(Path(folder).rglob("*.obj*")):
        if match := _BLOOD_FILE.fullmatch(path.name):
            files[match[1] or match[2]] = path
    return humans, files


def read_visible_human(folder: Path, name: str) -> dict[str, Mesh]:
    """All parts of the heart VH_M or VH_F by their published names. Raises MeshError."""
    parts = {}
    for kind in ("Heart", "Blood_Vasculature_Heart"):
        path = _found(folder, f"{name}_{kind}.glb")
        for part, mesh in _read_glb(path).items():
            parts[part.removeprefix(f"{name}_").removeprefix("heart_")] = mesh
    return parts


def read_toronto(path: Path) -> dict[str, Mesh]:
    """Blood of lv, rv, la, ra, aorta and pulmonary of a heart in the Toronto atlas' form. Raises MeshError."""
    parts = {}
    for title, mesh in _read_obj(path).items():
        words = title.lower().removeprefix("ccase_").split("_repaired")[0].split("_remeshed")[0]
        if words[0].isdigit() and "2018016" not in words:
            words = words.split("_", 1)[-1]
        key = words.removeprefix("2018016_").removeprefix("pre_").removeprefix("post_")
        if key in _TORONTO_PARTS:
            parts[_TORONTO_PARTS[key]] = mesh
    if missing := set(_TORONTO_PARTS.values()) - set(parts):
        raise MeshError(
            f"{path} holds no object {', '.join(sorted(missing))}; the form is that of the Toronto Heart Atlas."
        )
    return parts


def _found(folder: Path, name: str) -> Path:
    found = sorted(Path(folder).rglob(name))
    if not found:
        raise MeshError(
            f"{folder} holds no {name}. Give a folder with a heart of the Human Reference Atlas at least, for its "
            "arteries (VH_M_Heart.glb and VH_M_Blood_Vasculature_Heart.glb, or VH_F; version v1.2 of "
            "github.com/hubmapconsortium/ccf-3d-reference-object-library); those of the Toronto Heart Atlas "
            "(2018012-01Aortalowres.obj to 2018016, github.com/tgh-apil/TorontoHeartAtlas) and of your own "
            "(allparts_NAME.obj) are read too."
        )
    return found[0]


def _read_glb(path: Path) -> dict[str, Mesh]:
    """Meshes of a binary glTF by node name; its nodes carry no transformations. Metres, Y up, Z forward."""
    data = path.read_bytes()
    try:
        magic, _, _ = struct.unpack_from("<4sII", data)
        length, kind = struct.unpack_from("<I4s", data, 12)
        if magic != b"glTF" or kind != b"JSON":
            raise ValueError("it does not begin as glTF")
        scene = json.loads(data[20 : 20 + length])
        binary = memoryview(data)[28 + length :]
        parts = {}
        for node in scene["nodes"]:
            if {"matrix", "scale", "rotation", "translation"} & set(node):
                raise ValueError(f"its node {node.get('name')} is transformed")
            if "mesh" not in node:
                continue
            (primitive,) = scene["meshes"][node["mesh"]]["primitives"]
            x, y, z = _accessor(scene, binary, primitive["attributes"]["POSITION"]).astype(float).T * 1000.0
            faces = _accessor(scene, binary, primitive["indices"]).reshape(-1, 3).astype(np.int64)
            parts[node["name"]] = Mesh(np.stack([x, -z, y], axis=1), faces)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise MeshError(f"{path} cannot be read as a mesh ({type(error).__name__}: {error}).") from error
    return parts


def _accessor(scene: dict, binary: memoryview, number: int) -> np.ndarray:
    accessor = scene["accessors"][number]
    view = scene["bufferViews"][accessor["bufferView"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    if accessor["type"] == "SCALAR":
        return np.frombuffer(binary, _COMPONENT[accessor["componentType"]], accessor["count"], start)
    if accessor["componentType"] != _POSITION or view.get("byteStride", 12) != 12:
        raise ValueError("its positions are no packed floats")
    return np.frombuffer(binary, np.float32, 3 * accessor["count"], start).reshape(-1, 3)


def _read_obj(path: Path) -> dict[str, Mesh]:
    """Objects of a Wavefront file, which may be gzipped, by name. Millimetres, X to the right, Y up, Z backward."""
    vertices, faces, name = [], {}, path.name
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if line.startswith("v "):
                    vertices.append([float(n) for n in words[1:4]])
                elif line.startswith("o "):
                    name = words[1]
                elif line.startswith("f "):
                    corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
                    own = faces.setdefault(name, [])
                    own += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
        x, y, z = np.array(vertices).T
        points = np.stack([-x, z, y], axis=1)
        parts = {}
        for title, triangles in faces.items():
            used, index = np.unique(np.array(triangles), return_inverse=True)
            parts[title] = Mesh(points[used], index.reshape(-1, 3))
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise MeshError(f"{path} cannot be read as a mesh ({type(error).__name__}: {error}).") from error
    return parts
