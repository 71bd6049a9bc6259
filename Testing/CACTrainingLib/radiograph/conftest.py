"""Radiographs drawn by hand, once for all tests."""

import hand_made_radiographs
import pytest

from CACTrainingLib.radiograph.dataset import load_radiographs


@pytest.fixture(scope="session")
def hand_made():
    """The module that draws them."""
    return hand_made_radiographs


@pytest.fixture(scope="session")
def drawn_folder(hand_made, tmp_path_factory):
    """24 cases of one view, six of each category."""
    folder = tmp_path_factory.mktemp("drawn")
    hand_made.write_cases(folder, 24, ("PA",))
    return folder


@pytest.fixture(scope="session")
def drawn(drawn_folder):
    """The same in memory."""
    return load_radiographs(drawn_folder, views=("PA",))
