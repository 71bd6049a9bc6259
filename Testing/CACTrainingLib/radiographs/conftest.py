"""Radiographs drawn by hand, once for all tests."""

import importlib.util
from pathlib import Path

import pytest

from CACTrainingLib.radiographs.dataset import load_radiographs


@pytest.fixture(scope="session")
def hand_made():
    """The module that draws them."""
    spec = importlib.util.spec_from_file_location("hand_made", Path(__file__).with_name("hand_made.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
