"""A chest with the region of its heart."""

import pytest
from ellipsoid_chest import Chest


@pytest.fixture(scope="module")
def chest():
    return Chest()


@pytest.fixture(scope="module")
def region(chest):
    return chest.region()
