"""Tests of the nodes of radiographs and their stand on Slicer's own MRML."""

import numpy as np
import pytest
import slicer
import vtk
from images import image_of
from vtk.util.numpy_support import vtk_to_numpy

from CACScoringLib.drr.pictures import PlacedRadiograph, centre_mm, placed, stand_of
from CACScoringLib.drr.settings import DrrSettings
from CACScoringLib.mrml import radiograph_nodes
from CACScoringLib.mrml import scene as mrml


def ct():
    values = np.full((10, 12, 14), -1000, np.int16)
    values[2:8, 2:10, 2:12] = 0
    values[4:6, 4:8, 4:10] = -900  # an internal cavity
    return image_of(values, (10.0, 10.0, 20.0), (-50.0, 30.0, 400.0))


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def volume(scene):
    return mrml.add_volume(scene, ct(), "chest")


def models_of(scene):
    return [
        scene.GetNthNodeByClass(n, "vtkMRMLModelNode") for n in range(scene.GetNumberOfNodesByClass("vtkMRMLModelNode"))
    ]


def radiograph_of(settings):
    geometry = settings.geometry(centre_mm(ct()))
    values = np.arange(settings.pixels**2, dtype=np.float32).reshape(settings.pixels, settings.pixels)
    heart = (values > 40).astype(np.uint8)
    calcium = placed(values / 1000, geometry)
    return PlacedRadiograph(placed(values, geometry), (2.0, 6.0), calcium, placed(heart, geometry))


class TestRadiograph:
    SETTINGS = DrrSettings(30.0, 10.0, pixels=8)

    def test_nodes_refer_to_each_other_and_have_the_place_of_the_picture(self, scene, volume):
        picture = radiograph_of(self.SETTINGS)
        node = radiograph_nodes.add_radiograph(scene, picture, volume, "PA radiograph", "PA")
        assert node.GetName() == "chest PA radiograph"
        assert radiograph_nodes.is_radiograph(node)
        assert not radiograph_nodes.is_radiograph(volume)
        assert not radiograph_nodes.is_radiograph(None)
        assert node.GetNodeReference(radiograph_nodes.CT_ROLE) is volume
        roles = (radiograph_nodes.OVERLAY_ROLE, radiograph_nodes.OUTLINE_ROLE)
        expected = np.array(picture.picture.TransformContinuousIndexToPhysicalPoint((7.0, 0.0, 0.0))) * [-1, -1, 1]
        for part in (node, *map(node.GetNodeReference, roles)):
            matrix = vtk.vtkMatrix4x4()
            part.GetIJKToRASMatrix(matrix)
            assert np.allclose(matrix.MultiplyPoint((7, 0, 0, 1))[:3], expected)
            assert part.GetAttribute(mrml.DERIVED_ATTRIBUTE) == "1"
        assert vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).tolist() == list(range(64))

    @pytest.mark.parametrize("settings", [SETTINGS, DrrSettings(180.0, mirrored=True, pixels=8)])
    def test_slice_axes_show_a_radiograph_upright(self, scene, volume, settings):
        node = radiograph_nodes.add_radiograph(scene, radiograph_of(settings), volume, "radiograph", "other")
        normal, right, centre = radiograph_nodes.slice_axes(node)
        geometry = settings.geometry(centre_mm(ct()))
        forwards, film_right, film_down = (axis * [-1, -1, 1] for axis in geometry.axes())
        assert np.allclose(right, film_right)
        assert np.allclose(np.cross(normal, right), -film_down)
        assert np.allclose(centre, np.array(centre_mm(ct())) * [-1, -1, 1] + 200 * forwards)


class TestStand:
    PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    def test_models_move_and_go(self, scene):
        nodes, node_count = radiograph_nodes.StandNodes(scene), scene.GetNumberOfNodes()
        for angle in (0.0, 90.0):
            stand = stand_of(DrrSettings(angle).geometry((10.0, 20.0, 30.0)))
            nodes.show(stand, self.PICTURE, radiograph_nodes.skin_of(ct()))
            models = {node.GetName(): node for node in models_of(scene)}
            assert sorted(models) == ["Radiograph beam", "Radiograph body", "Radiograph detector"]
            corners = vtk_to_numpy(models["Radiograph detector"].GetPolyData().GetPoints().GetData())
            assert np.allclose(corners.mean(0), stand.corners.mean(0) * [-1, -1, 1])
            assert not any(node.GetSaveWithScene() for node in models.values())
        nodes.remove()
        assert scene.GetNumberOfNodes() == node_count

    def test_body_is_a_skin_at_its_place(self, scene):
        nodes = radiograph_nodes.StandNodes(scene)
        nodes.show(stand_of(DrrSettings().geometry((0.0, 0.0, 0.0))), None, radiograph_nodes.skin_of(ct()))
        skin = scene.GetFirstNodeByName("Radiograph body")
        bounds = skin.GetPolyData().GetBounds()
        # Voxels 2 to 11, 2 to 9 and 2 to 7, plus 0.3 voxel: -300 HU on the way from 0 to -1000 HU. RAS.
        assert np.allclose(bounds, (-60 - 3, 30 + 3, -120 - 3, -50 + 3, 440 - 6, 540 + 6), atol=0.1)
        depths = vtk_to_numpy(skin.GetPolyData().GetPoints().GetData())
        assert not (
            (abs(depths[:, 0] + 15) < 20) & (abs(depths[:, 1] + 85) < 20) & (abs(depths[:, 2] - 490) < 30)
        ).any()
