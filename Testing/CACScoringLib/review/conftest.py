"""Reviews of results in scenes."""

import pytest
import slicer
from calcified_heart import NETWORKS, calcified_scan

from CACScoringLib.mrml import scene as mrml
from CACScoringLib.mrml.scene_content import content_of_result
from CACScoringLib.pipeline import score_scan
from CACScoringLib.review.scene import SceneReview


@pytest.fixture
def scene():
    slicer.vtkSlicerSegmentationsModuleLogic()
    return slicer.vtkMRMLScene()


@pytest.fixture
def opened(scene):
    """Opens the review of a result in the scene. changed: what its record has in place of its own."""

    def open_review(result, **changed):
        content = content_of_result(result.stating(**changed))
        return SceneReview(scene, mrml.add_to_scene(scene, content))

    return open_review


@pytest.fixture(scope="session")
def scored():
    """Result of a scan with lesions of all sizes and noise specks."""
    scan, heart = calcified_scan()
    return score_scan(scan, heart=heart, networks=NETWORKS)


@pytest.fixture
def review(opened, scored):
    return opened(scored)
