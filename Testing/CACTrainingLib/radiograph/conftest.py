"""Synthetic radiographs on which a network learns in seconds: calcium is a bright spot in the heart."""

import numpy as np
import pytest

from CACScoringLib.core.tables import write_table
from CACScoringLib.radiograph.view import STANDARD_PIXELS
from CACTrainingLib.data.scan_table import LABELS, read_radiographs
from CACTrainingLib.data.scan_table import RADIOGRAPH_TABLE as TABLE
from CACTrainingLib.radiograph.cases import CASES, SETTINGS, Drawing, View, sparse, write_case
from CACTrainingLib.radiograph.dataset import load_radiographs

SCORES = (0.0, 50.0, 200.0, 800.0)
MM_PER_SCORE = {0.0: 0.0, 50.0: 12.0, 200.0: 25.0, 800.0: 60.0}


def write_cases(folder, count, first=0):
    """Write cases of one view as `cac radiographs` does."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + count):
        score = SCORES[number % len(SCORES)]
        generator = np.random.default_rng(number)
        file = f"{CASES}/case_{number}.npz"
        drawn = view_of(200.0, np.random.default_rng(1000 + number)).calcium
        drawings = [Drawing(200.0, {"PA": sparse(drawn)})]
        write_case(folder / file, {"PA": view_of(score, generator)}, drawings=drawings)
        age, sex, bmi = 50 + 10 * (score > 0) + number % 3, "FM"[number // 4 % 2], 25 + number % 5
        rows.append((f"case_{number}", number, file, age, sex, bmi, *[score] * len(LABELS)))
    (folder / SETTINGS).write_text("{}", encoding="utf-8")
    write_table(folder / TABLE, ["name", "patient", "file", "age_years", "sex", "bmi_kg_m2", *LABELS], rows)


def view_of(score, generator):
    """Draw a body, a heart in it, and a spot of calcium in the heart."""
    row, column = np.mgrid[:STANDARD_PIXELS, :STANDARD_PIXELS].astype(np.float32) / 2
    heart_row, heart_column = 230 + generator.integers(-15, 16), 220 + generator.integers(-15, 16)
    body = 200 * np.clip(1 - ((row - 216) / 210) ** 2 - ((column - 216) / 190) ** 2, 0, 1)
    heart = 80 * np.clip(1 - ((row - heart_row) / 60) ** 2 - ((column - heart_column) / 60) ** 2, 0, 1)
    at_row, at_column = heart_row + generator.integers(-30, 31), heart_column + generator.integers(-30, 31)
    calcium = MM_PER_SCORE[score] * np.exp(-((row - at_row) ** 2 + (column - at_column) ** 2) / (2 * 5.0**2))
    calcium = np.where(calcium < 0.05, 0, calcium)
    return View((body + heart + calcium).astype(np.float32), calcium.astype(np.float32), heart.astype(np.float32))


@pytest.fixture(scope="session", name="write_cases")
def drawing():
    """Function that writes cases."""
    return write_cases


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory):
    """Folder of 24 cases of one view, six of each category."""
    folder = tmp_path_factory.mktemp("drawn")
    write_cases(folder, 24)
    return folder


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory):
    """Folder of eight cases of one view, of other patients."""
    folder = tmp_path_factory.mktemp("other")
    write_cases(folder, 8, first=100)
    return folder


@pytest.fixture(scope="session")
def drawn(drawn_folder):
    """Cases of `drawn_folder` in memory."""
    return load_radiographs(read_radiographs(drawn_folder), views=("PA",))
