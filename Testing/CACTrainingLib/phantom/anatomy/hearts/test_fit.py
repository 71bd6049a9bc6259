"""Fit of the measured hearts to painted hearts, with masks that spill."""

from types import SimpleNamespace

import numpy as np
import pytest
from images import image_of

from CACTrainingLib.phantom.anatomy.heart import reference_frame
from CACTrainingLib.phantom.anatomy.hearts.fit import MARKS, fit_heart
from CACTrainingLib.phantom.anatomy.hearts.shape import interpolate
from CACTrainingLib.phantom.anatomy.hearts.territories import costs, labels_at
from CACTrainingLib.phantom.anatomy.patient import draw_anatomy

SPACING = (2.5, 2.5, 4.0)


@pytest.fixture(scope="module")
def painted():
    """Patient's heart as muscle in fat in lung, with its mask, a mask that spills upwards, and its territories."""
    body, shape, tree = draw_anatomy(7)
    frame = reference_frame(body)
    inside = frame.to_lps(shape.places_mm[shape.pericardium < 0])
    axes = [np.arange(a - 30, b + 30, s) for a, b, s in zip(inside.min(0), inside.max(0), SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    places = frame.to_heart(np.stack([x, y, z], -1).reshape(-1, 3))
    pericardium, walls = (
        distances_at(shape, field, places).reshape(x.shape) for field in (shape.pericardium, shape.surface)
    )
    hu = np.where(walls < 0, 40, np.where(pericardium < 0, -100, -850))
    hu = hu + np.random.default_rng(0).normal(0, 15, x.shape)
    mask = pericardium < 0
    spilt = mask.copy()
    spilt[6:] |= mask[:-6] & (hu[6:] > -300)
    labels = labels_at(shape, costs(shape, tree), places).reshape(x.shape)
    low = [a[0] for a in axes]
    arrays = {"image": hu.astype(np.int16), "mask": mask, "spilt": spilt, "labels": labels}
    images = {name: image_of(a if name == "image" else a.astype(np.uint8), SPACING, low) for name, a in arrays.items()}
    return SimpleNamespace(**images, shape=shape, frame=frame, tree=tree)


def distances_at(shape, lattice, points):
    return interpolate(lattice.reshape(-1, 1), lattice.shape, shape.low_mm, points)[:, 0]


def landmark_errors(fit, painted, names=None):
    names = names or list(painted.shape.landmarks_mm)
    true = painted.frame.to_lps(np.array([painted.shape.landmarks_mm[n] for n in names]))
    fitted = fit.placement.to_lps(np.array([fit.shape.landmarks_mm[n] for n in names]))
    return np.linalg.norm(true - fitted, axis=1)


@pytest.fixture(scope="module")
def fitted(painted):
    return fit_heart(painted.image, painted.mask)


def test_a_painted_heart_is_found_again(painted, fitted):
    assert fitted.agreement > 0.94
    assert fitted.residual_mm < 3
    assert landmark_errors(fitted, painted).mean() < 6


@pytest.mark.long
def test_labels_draw_the_heart_to_the_places_that_they_name(painted):
    """Labels place the valves, even against the mask."""
    marked = tuple(dict.fromkeys(MARKS.values()))
    errors = [
        landmark_errors(fit_heart(painted.image, painted.spilt, labels=labels), painted, marked).mean()
        for labels in (None, painted.labels)
    ]
    assert errors[1] < errors[0]
    assert errors[1] < 5
