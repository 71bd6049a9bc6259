"""Which heart is scored: the network's, the region between the lungs, or none."""

import re

import numpy as np
import pytest
import SimpleITK as sitk
from handmade_networks import loaded
from known_territories import label_of, territories_of
from scipy import ndimage

from CACScoringLib.anatomy import heart_search
from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import NoHeartError
from CACScoringLib.core.grid import Grid
from CACScoringLib.networks.configs import TerritoryNetConfig

NETWORK = loaded(None, TerritoryNetConfig())


def network_says(monkeypatch, heart, has_arteries=True):
    """Let the network find a heart, bool [k, j, i], with LAD, LCX, RCA and root, or "other" alone; None: no heart."""

    def find_territories(scan, model, expected=None):
        if heart is None:
            raise NoHeartError("The network hand found 3 ml of heart.")
        arteries = label_of("LAD") + np.arange(heart.shape[2]) % 4
        return territories_of(heart * (arteries if has_arteries else label_of("other")))

    monkeypatch.setattr(heart_search, "find_territories", find_territories)


def codes(region):
    return [warning.code for warning in region.warnings]


def severe(region):
    return [warning.code for warning in region.warnings if warning.severe]


@pytest.mark.long
@pytest.mark.parametrize("heart", ["liver", None, "beyond the scan"])
def test_the_lungs_region_replaces_a_misled_network(chest, region, monkeypatch, heart):
    hearts = {"liver": chest.liver, None: None, "beyond the scan": np.zeros_like(chest.heart)}
    network_says(monkeypatch, hearts[heart])
    located = find_heart(chest.scan(), None, NETWORK)
    np.testing.assert_array_equal(located.mask, region.mask)
    assert (located.source, severe(located)) == ("lungs", ["heart-from-lungs"])


class TestGivenMasks:
    """A pear for a heart, its apex to the left, front and feet, that fills the middle of a volume of 120 mm."""

    SIZE, SPACING = (60, 60, 40), (2.0, 2.0, 3.0)

    @pytest.fixture
    def heart(self):
        k, j, i = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(self.SIZE[::-1], self.SPACING[::-1], strict=True))
        z, y, x = k[:, None, None], j[:, None], i
        base = (x + 12) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 < 36**2
        return base | ((x - 24) ** 2 + (y + 24) ** 2 + (z + 24) ** 2 < 22**2)

    def doubt(self, mask, heart, least=0.5):
        warnings = heart_search.mask_warnings("heart mask", mask, heart, 12.0, least)
        assert all(warning.severe and warning.code == "mask-doubtful" for warning in warnings)
        return "".join(warning.message for warning in warnings)

    def test_a_mask_of_the_heart_is_not_doubted(self, heart):
        assert not self.doubt(heart, heart)
        assert not self.doubt(ndimage.binary_dilation(heart, iterations=3), heart)
        assert not self.doubt(np.roll(heart, 3, 2), heart)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_mirrored_mask(self, heart, axis):
        direction = ("upside down", "front to back", "left to right")[axis]
        assert f"better when it is mirrored {direction}" in self.doubt(np.flip(heart, axis), heart)

    def test_a_shifted_mask_and_an_implausible_heart(self, heart):
        assert re.search(r"by only \d\d% \(Dice\)", self.doubt(np.roll(heart, -16, 1), heart))
        plane = np.zeros_like(heart)
        plane[20] = True
        for mask in (plane, np.ones_like(heart), ~heart):
            assert "by only" in self.doubt(mask, heart)

    @pytest.mark.parametrize(
        ("change", "is_given"),
        [
            (lambda heart: ndimage.binary_dilation(heart), True),
            (lambda heart: ndimage.binary_erosion(heart, iterations=4), False),
        ],
    )
    def test_a_pericardium_unlike_that_of_the_network(self, heart, change, is_given):
        grid = Grid(self.SIZE, self.SPACING, (0.0, 0.0, 0.0))
        region = HeartRegion(heart, None, "network", pericardium=heart, pericardium_source="network")
        hu = np.where(heart, 40, -1000).astype(np.int16)
        hu[:, 0, 0] = 1500
        scan = scan_from_image(grid.image(hu), Acquisition("test"))
        result = heart_search._with_pericardium(region, grid.image(change(heart).astype(np.uint8)), scan)
        assert (result.pericardium_source == "given", codes(result)) == (
            is_given,
            [] if is_given else ["mask-doubtful"],
        )

    def test_without_a_heart_the_volume_decides(self):
        mask = np.zeros(self.SIZE[::-1], bool)
        mask.reshape(-1)[:31_250] = True
        assert heart_search.mask_warnings("heart mask", mask, None, 64.0) == ()  # 2000 ml
        mask.reshape(-1)[31_250] = True
        assert "has 2000 ml" in heart_search.mask_warnings("heart mask", mask, None, 64.0)[0].message

    @pytest.mark.long
    def test_without_networks_the_lungs_decide(self, chest):
        for mask, expected in ((chest.heart, []), (chest.liver, ["mask-doubtful"]), (chest.bone, ["mask-doubtful"])):
            given = Grid.of(chest.image).image(mask.astype(np.uint8))
            assert codes(find_heart(chest.scan(), given, None)) == expected


def airless(chest):
    """The middle of the chest, its lungs as dense as air outside: no lungs are found."""
    hu = sitk.GetArrayFromImage(chest.image)
    hu[hu < -600] = -1000
    image = Grid.of(chest.image).image(hu)
    part = (slice(8, 75), slice(8, 80), slice(36, 120))
    return image[part[::-1]], chest.heart[part].copy()


def test_without_lungs_a_plausible_heart_is_taken(chest, monkeypatch):
    image, heart = airless(chest)
    scan = scan_from_image(image, Acquisition("test"))
    with pytest.raises(NoHeartError, match="No lungs"):
        find_heart(scan, None, None)
    network_says(monkeypatch, heart)
    located = find_heart(scan, None, NETWORK)
    bone = located.bone
    assert located.mask[heart & ~bone].all()
    assert not (located.mask & bone).any()
    assert (located.source, codes(located)) == ("known", [])


def test_without_lungs_bone_is_distinguished_from_calcium(chest, monkeypatch):
    image, heart = airless(chest)
    hu = sitk.GetArrayFromImage(image)
    middle = np.argwhere(heart).mean(0).astype(int)
    annulus = tuple(slice(n - 4, n + 4) for n in middle)
    hu[annulus] = np.random.default_rng(1).integers(550, 650, hu[annulus].shape)
    dense = Grid.of(image).image(hu)
    network_says(monkeypatch, heart)
    located = find_heart(scan_from_image(dense, Acquisition("test")), None, NETWORK)
    bone = located.bone
    part = (slice(8, 75), slice(8, 80), slice(36, 120))
    assert heart[annulus].all()
    nearby = ndimage.distance_transform_edt(~heart, (3.0, 2.5, 2.5)) < 25
    assert bone[chest.bone[part] & nearby].mean() > 0.95
    assert not bone[chest.plaque[part]].any()
    assert not bone[annulus].any()
    assert located.mask[annulus].all()


def ball(shape, spacing_mm, radius_mm, centre_mm=(0, 0, 0)):
    axes = [(np.arange(n) - (n - 1) / 2) * s - c for n, s, c in zip(shape, spacing_mm, centre_mm, strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    return k**2 + j**2 + i**2 <= radius_mm**2


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (r"\d\d ml", lambda heart, hu: np.copyto(heart, ball(heart.shape, (3, 2.5, 2.5), 21))),
        ("radius", lambda heart, hu: np.copyto(heart, np.abs(np.indices(heart.shape)[0] - 33) < 4)),
        ("on the right", lambda heart, hu: hu[:, :, : hu.shape[2] // 2].fill(40)),
        ("on the left", lambda heart, hu: hu[:, :, hu.shape[2] // 2 :].fill(40)),
    ],
)
def test_without_lungs_an_implausible_heart_is_refused(chest, monkeypatch, reason, change):
    image, heart = airless(chest)
    hu = sitk.GetArrayFromImage(image)
    change(heart, hu)
    changed = Grid.of(image).image(hu)
    network_says(monkeypatch, heart)
    with pytest.raises(NoHeartError, match=reason) as error:
        find_heart(scan_from_image(changed, Acquisition("test")), None, NETWORK)
    assert re.search("(No|two) lungs", str(error.value).splitlines()[0])


class TestTerritories:
    """Heart and territories of one network, whose answer is given."""

    @pytest.mark.long
    def test_their_heart_is_taken_a_little_wider_and_without_bone(self, chest, region, monkeypatch):
        network_says(monkeypatch, chest.heart, has_arteries=False)
        located = find_heart(chest.scan(), None, NETWORK)
        heart, bone = located.mask, region.bone
        assert located.source == "known"
        assert located.territories is not None
        assert heart[chest.heart & ~bone].all()
        assert not heart[bone].any()
        assert chest.heart.sum() < heart.sum() < 1.4 * chest.heart.sum()

    @pytest.mark.long
    def test_a_misled_network_looks_again_between_the_lungs(self, chest, monkeypatch):
        def find_territories(scan, model, expected=None):
            heart = np.roll(chest.heart, chest.heart.shape[0] // 2, 0) if expected is None else chest.heart
            return territories_of(heart.astype(np.uint8) * label_of("other"))

        monkeypatch.setattr(heart_search, "find_territories", find_territories)
        located = find_heart(chest.scan(), None, NETWORK)
        assert (located.source, codes(located)) == ("known", [])

    @pytest.mark.parametrize(
        ("is_found", "reason"),
        [
            (True, r"LAD holds 0 ml; 15 ml or more is usual\. Give a heart mask\.\nBoth ends of the scan cut it"),
            (False, r"3 ml of heart\.\nBoth ends of the scan cut the region"),
        ],
    )
    def test_a_short_piece_without_arteries_is_no_heart(self, chest, monkeypatch, is_found, reason):
        """A phantom of a thorax has lungs around its insert."""
        part = slice(28, 55)
        image, heart = chest.image[:, :, part], chest.heart[part]
        network_says(monkeypatch, heart if is_found else None, has_arteries=False)
        with pytest.raises(NoHeartError, match=reason):
            find_heart(scan_from_image(image, Acquisition("test")), None, NETWORK)

    def test_a_given_heart_keeps_its_outline(self, chest, monkeypatch):
        network_says(monkeypatch, chest.heart, has_arteries=False)
        user_mask = Grid.of(chest.image).image(chest.heart.astype(np.uint8))
        located = find_heart(chest.scan(), user_mask, NETWORK)
        np.testing.assert_array_equal(located.mask, chest.heart)
        assert located.territories is not None
        assert codes(located) == []
