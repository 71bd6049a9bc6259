"""A small cohort to train on, and its prepared slices; two digital patients scanned twice."""

import pytest
from training_scans import write_cohort

from CACTrainingLib.data.datasets import SliceDataset, find_scans, load_slices, prepare, split_by_patient


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Folder in which trainings keep prepared scans."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAC_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def parts(cohort, cache):
    """Slices to train and to validate on."""
    parts = split_by_patient(find_scans([cohort]), 0.5, 0)
    return [SliceDataset([load_slices(f) for f in prepare(scans, "slices", cache)]) for scans in parts]


@pytest.fixture(scope="session")
def digital_pairs(tmp_path_factory):
    """Folder of a cohort: two digital patients scanned twice."""
    from digital_pairs import write_pairs  # imports PyTorch

    return write_pairs(tmp_path_factory.mktemp("digital-pairs"))


@pytest.fixture(scope="session")
def digital_results(digital_pairs, tmp_path_factory):
    """The scans of `digital_pairs`, and their results by networks whose answers are known."""
    from digital_pairs import write_results

    from CACTrainingLib.references.registry import read_study

    scans = read_study(digital_pairs).scans
    return scans, write_results(scans, tmp_path_factory.mktemp("results"))
