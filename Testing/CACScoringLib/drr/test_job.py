"""Jobs of radiographs for panels: settings, files, and pictures on the detector."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.progress import Progress
from CACScoringLib.drr import job as drr_job
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.job import DrrSettings
from CACScoringLib.drr.projection import radiograph

SMALL = {"pixels": 40}


def cube(spot=(10, 12, 14), hu=900.0):
    """Return 96 mm of water in air with a bright voxel (k, j, i), off the origin, with 4 mm voxels."""
    values = np.full((32, 32, 32), -1000, np.float32)
    values[4:28, 4:28, 4:28] = 0
    values[spot] = hu
    return image_of(values, (4.0, 4.0, 4.0), (100.0, -50.0, 30.0))


@pytest.mark.long
@pytest.mark.parametrize("settings", [DrrSettings(**SMALL), DrrSettings(30.0, 15.0, True, **SMALL)])
def test_a_voxel_lies_on_the_line_from_the_source_to_its_shadow(settings):
    spot = (10, 12, 14)
    image = cube(spot, 30000.0)
    geometry = settings.geometry(centre_mm(image))
    picture = drr_job.placed(radiograph(image, geometry).line_integrals, geometry)
    _, row, column = np.unravel_index(np.argmax(sitk.GetArrayViewFromImage(picture)), (1, 40, 40))
    shadow = np.array(picture.TransformContinuousIndexToPhysicalPoint((float(column), float(row), 0.0)))
    voxel = np.array(image.TransformIndexToPhysicalPoint(spot[::-1]))
    forwards = geometry.axes()[0]
    source = np.array(geometry.isocentre_mm) - settings.source_isocentre_mm * forwards
    expected = source + (voxel - source) * settings.source_detector_mm / ((voxel - source) @ forwards)
    assert np.abs(shadow - expected).max() <= picture.GetSpacing()[0]


@pytest.mark.long
def test_the_table_is_removed_unless_kept_by_a_setting(tmp_path):
    image = cube()
    image[4:28, 30, 4:28] = 500  # a board behind the body
    sums = []
    for table in (False, True):
        drr_job.write_job(tmp_path, DrrSettings(table=table, **SMALL), image)
        drr_job.make_radiograph(tmp_path, Progress())
        sums.append(sitk.GetArrayFromImage(drr_job.read_radiograph_of(tmp_path).picture).sum())
    assert sums[0] < 0.98 * sums[1]
    drr_job.find_body(tmp_path, Progress())
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / drr_job.BODY)))[:, 30].max() < -900
