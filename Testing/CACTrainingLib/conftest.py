"""A small cohort to train on, and its prepared slices."""

import pytest

from CACTrainingLib.datasets import SliceDataset, find_scans, load_slices, prepare, split_by_patient
from training_scans import write_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def parts(cohort, cache):
    """Slices to train and to validate on."""
    parts = split_by_patient(find_scans([cohort]), 0.5, 0)
    return [SliceDataset([load_slices(f) for f in prepare(scans, "slices", cache)]) for scans in parts]
