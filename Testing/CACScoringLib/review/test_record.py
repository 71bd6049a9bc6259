import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import UnreadableError
from CACScoringLib.review.record import whole_map


@pytest.fixture
def whole():
    image = sitk.GetImageFromArray(np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4))
    image.SetSpacing((0.7, 0.7, 2.5))
    image.SetOrigin((-100.3, 20.1, 7.0))
    return image


class TestWholeMap:
    def test_a_part_has_nothing_around_it(self, whole):
        found = sitk.GetArrayFromImage(whole_map(whole[1:3, 0:2, 1:2], whole, "It"))
        expected = sitk.GetArrayFromImage(whole)
        expected[0] = expected[:, 2:] = expected[:, :, [0, 3]] = 0
        np.testing.assert_array_equal(found, expected)

    def test_all_of_it_is_as_it_was(self, whole):
        """Scenes of earlier versions hold the whole."""
        found = whole_map(whole, whole, "It")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(whole))

    @pytest.mark.parametrize("moved", [(0.3, 0, 0), (0, 0, 2.5), (0, -1.4, 0)])
    def test_what_lies_elsewhere_is_refused(self, whole, moved):
        part = whole[1:3, 0:2, 1:2]
        part.SetOrigin(np.add(part.GetOrigin(), moved).tolist())
        with pytest.raises(UnreadableError, match="It does not lie on"):
            whole_map(part, whole, "It")

    def test_with_other_voxels_it_is_refused(self, whole):
        part = whole[1:3, 0:2, 1:2]
        part.SetSpacing((0.7, 0.8, 2.5))
        with pytest.raises(UnreadableError, match="It does not lie on"):
            whole_map(part, whole, "It")
