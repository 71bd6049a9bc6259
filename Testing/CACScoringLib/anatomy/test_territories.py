"""What is made of territories that a network found."""

import numpy as np
import SimpleITK as sitk
from known_territories import label_of, territories_of

OUTSIDE, LCX, DESCENDING, OTHER = map(label_of, ("outside", "LCX", "descending aorta", "other"))


def test_the_descending_aorta_is_also_where_it_was_seen_to_run():
    names = np.full((4, 12, 12), OUTSIDE)
    names[:, :3] = OTHER
    names[:, :5, 9:] = LCX
    names[:, 7:9, 4:8] = DESCENDING
    tube = np.zeros(names.shape, np.uint8)
    tube[:, 2:8, 4:11] = 1
    expected = names.copy()
    expected[:, 2:8, 4:11][names[:, 2:8, 4:11] != LCX] = DESCENDING
    territories = territories_of(sitk.GetImageFromArray(tube), names)
    found = territories.with_descending_aorta(sitk.GetImageFromArray(tube))
    np.testing.assert_array_equal(found.probability.argmax(0), expected)
    np.testing.assert_allclose(found.probability.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(found.heart, territories.heart)
