"""Reading meshes and measuring hearts on them; on balls and boxes, and on real hearts where they are at hand."""

import gzip
from dataclasses import replace

import numpy as np
import pytest

from CACTrainingLib.phantom.anatomy.hearts.measure import VoxelHeart, _centre_line, measured
from CACTrainingLib.phantom.anatomy.hearts.meshes import (
    TORONTO,
    VISIBLE_HUMANS,
    Mesh,
    MeshError,
    hearts_in,
    read_toronto,
    read_visible_human,
)
from CACTrainingLib.phantom.anatomy.hearts.models import PARTS
from CACTrainingLib.phantom.anatomy.hearts.shape import shipped_models
from CACTrainingLib.phantom.anatomy.hearts.voxels import Cubes, cavities, cubes_around, enclosed, surface
from conftest import REAL_CT_DIR

ANATOMY = REAL_CT_DIR / "anatomy"


def ball(radius: float, centre=(0.0, 0.0, 0.0)) -> Mesh:
    """A ball's surface, triangles between meridians and parallels."""
    rows, columns = 24, 48
    polar, around = np.meshgrid(np.linspace(0, np.pi, rows), 2 * np.pi * np.arange(columns) / columns, indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b = index[:-1], index[1:]
    c, d = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([c, b, d], -1).reshape(-1, 3)])
    return Mesh(points.reshape(-1, 3) * radius + np.array(centre), faces)


def test_a_ball_encloses_its_volume():
    mesh = ball(20.0)
    cubes = cubes_around([mesh], 5.0, 1.0)
    assert enclosed(mesh, cubes).sum() == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.03)
    touched = np.linalg.norm(cubes.points_mm()[surface(mesh, cubes)], axis=1)
    assert abs(touched - 20).max() < 1.5


def test_a_wall_of_two_surfaces_encloses_the_wall_alone():
    outer, inner = ball(20.0), ball(15.0)
    # The inner surface looks inwards, as that of a solid wall does.
    wall = Mesh(
        np.concatenate([outer.vertices_mm, inner.vertices_mm]),
        np.concatenate([outer.faces, inner.faces[:, ::-1] + len(outer.vertices_mm)]),
    )
    cubes = cubes_around([wall], 5.0, 1.0)
    assert enclosed(wall, cubes).sum() == pytest.approx(4 / 3 * np.pi * (20**3 - 15**3), rel=0.04)


def test_rooms_are_split_at_their_neck():
    left, right = ball(12.0, (-10.0, 0, 0)), ball(12.0, (10.0, 0, 0))
    cubes = cubes_around([left, right], 6.0, 1.0)
    inside = enclosed(left, cubes) | enclosed(right, cubes)
    walls = surface(left, cubes) & ~enclosed(right, cubes) | surface(right, cubes) & ~enclosed(left, cubes)
    x = cubes.points_mm()[..., 0]
    rooms = cavities(walls, np.zeros_like(walls), {"left": inside & (x < -8), "right": inside & (x > 8)})
    assert rooms["left"][inside & (x < -3)].mean() > 0.85
    assert not rooms["left"][x > 3].any()
    assert rooms["right"][inside & (x > 3)].mean() > 0.85


def test_a_bent_tubes_centre_line_begins_next_to_the_root():
    t, around = np.meshgrid(np.linspace(0, np.pi, 90), np.linspace(0, 2 * np.pi, 12, endpoint=False), indexing="ij")
    middle = np.stack([30 * np.cos(t), 30 * np.sin(t), 0 * t], -1)
    out = np.stack([np.cos(t) * np.cos(around), np.sin(t) * np.cos(around), np.sin(around)], -1)
    tube = Mesh((middle + 1.0 * out).reshape(-1, 3), np.zeros((0, 3), int))
    line = _centre_line(tube, np.array([-32.0, 0, 0]))
    assert line[0, 0] < -25
    assert np.abs(np.linalg.norm(line, axis=1) - 30).max() < 1.0
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).sum() == pytest.approx(30 * np.pi, rel=0.06)


def test_what_is_missing_or_foreign_is_named(tmp_path):
    with pytest.raises(MeshError, match=r"VH_M_Heart\.glb"):
        read_visible_human(tmp_path, "VH_M")
    (tmp_path / "VH_M_Heart.glb").write_bytes(b"no mesh at all, but long enough to be one")
    with pytest.raises(MeshError, match=r"VH_M_Heart\.glb cannot be read"):
        read_visible_human(tmp_path, "VH_M")
    path = tmp_path / "allparts_own.obj.gz"
    with gzip.open(path, "wt") as file:
        file.write("o Cube\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(MeshError, match="aorta, la, lv"):
        read_toronto(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(MeshError, match="cannot be read"):
        read_toronto(path)


def test_hearts_are_found_by_their_files_names(tmp_path):
    for name in ("VH_F_Heart.glb", f"atlas/{TORONTO[1]}.obj", "allparts_own.obj.gz", "2018002-01Aortalowres.obj"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    humans, files = hearts_in(tmp_path)
    assert humans == ("VH_F",)
    assert files == {TORONTO[1]: tmp_path / f"atlas/{TORONTO[1]}.obj", "own": tmp_path / "allparts_own.obj.gz"}
    (tmp_path / "VH_F_Heart.glb").unlink()
    with pytest.raises(MeshError, match=r"VH_M_Heart\.glb"):
        hearts_in(tmp_path)


def test_an_own_heart_is_read_plain_or_gzipped(tmp_path):
    lines = []
    for n, name in enumerate(("lv", "rv", "la", "ra", "aorta", "pulmonary_artery")):
        lines += [f"o {name}", f"v {n} 0 5", f"v {n + 1} 0 5", f"v {n} 1 5", f"f {3 * n + 1} {3 * n + 2} {3 * n + 3}"]
    (tmp_path / "allparts_a.obj").write_text("\n".join(lines))
    (tmp_path / "allparts_b.obj.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    plain, packed = (read_toronto(tmp_path / name) for name in ("allparts_a.obj", "allparts_b.obj.gz"))
    assert set(plain) == set(packed) == {"lv", "rv", "la", "ra", "aorta", "pulmonary"}
    # X to the right, Y up and Z backward are -x, z and y of LPS.
    assert np.allclose(plain["rv"].vertices_mm[0], [-1, 5, 0])
    assert np.array_equal(plain["rv"].vertices_mm, packed["rv"].vertices_mm)


@pytest.fixture(scope="module")
def voxel_heart():
    """A shipped heart as voxels, turned, made larger and moved."""
    models = shipped_models()
    axes = [np.arange(lo, lo + size, 3.0) for lo, size in zip(models.low_mm, models.size_mm, strict=True)]
    distances = models.distances(np.eye(len(models.names))[1], axes)
    cubes = Cubes(1.2 * models.low_mm + 50.0, distances.shape[1:], 1.2 * 3.0)
    # Two axes change places, for the frame is left-handed and LPS right-handed.
    swapped = Cubes(cubes.origin_mm[[1, 0, 2]], tuple(np.array(cubes.shape)[[1, 0, 2]]), cubes.step_mm)
    masks = {part: np.swapaxes(d < 0, 0, 1) for part, d in zip(PARTS, distances, strict=True)}
    return VoxelHeart("one", swapped, masks, {}, {})


def test_a_heart_of_any_size_and_direction_comes_into_the_frame_of_others(voxel_heart):
    models = shipped_models()
    again = measured([voxel_heart], 14, models.landmarks_mm)
    assert np.abs(again.landmarks_mm[0] - models.landmarks_mm[1]).max() < 5
    axes = [np.arange(lo, lo + size, 6.0) for lo, size in zip(models.low_mm, models.size_mm, strict=True)]
    there, back = (m.distances(w, axes) < 0 for m, w in ((models, np.eye(7)[1]), (again, np.ones(1))))
    for part, a, b in zip(PARTS, there, back, strict=True):
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85, part


def test_a_mirrored_heart_is_refused(voxel_heart):
    mirrored = replace(voxel_heart, masks={part: mask[::-1] for part, mask in voxel_heart.masks.items()})
    with pytest.raises(MeshError, match=r"heart one lie \d+ mm off.*mirrored"):
        measured([mirrored], 14, shipped_models().landmarks_mm)


@pytest.mark.skipif(not ANATOMY.is_dir(), reason="needs the published meshes")
def test_the_published_hearts_lie_as_patients_do():
    """Apex to the left and down, right chambers to the right, arteries around the root."""
    for name in VISIBLE_HUMANS:
        parts = read_visible_human(ANATOMY, name)
        middle = {key: mesh.vertices_mm.mean(axis=0) for key, mesh in parts.items()}
        assert middle["left_ventricle"][0] > middle["right_cardiac_atrium"][0]
        assert middle["aortic_arch"][2] > middle["left_ventricle"][2]
        assert middle["left_cardiac_atrium"][1] > middle["right_ventricle"][1]
    humans, files = hearts_in(ANATOMY)
    assert humans == VISIBLE_HUMANS
    assert set(files) == set(TORONTO)
    for path in files.values():
        parts = read_toronto(path)
        middle = {key: mesh.vertices_mm.mean(axis=0) for key, mesh in parts.items()}
        assert middle["lv"][0] > middle["ra"][0]
        assert middle["la"][1] > middle["rv"][1]
        assert middle["aorta"][2] > middle["lv"][2]
