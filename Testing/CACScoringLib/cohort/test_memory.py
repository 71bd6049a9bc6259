"""How many scans fit at once: from their voxels, what is asked for, and the memory there is."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series
from in_this_process import InThisProcess

from CACScoringLib.cohort import cohort
from CACScoringLib.cohort import memory as cohort_memory
from CACScoringLib.cohort.cohort import score_cohort
from CACScoringLib.cohort.memory import SLICE_PIXELS, Asked, plan, scoring_bytes, voxels_of
from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.search import scans_of_folder, search
from CACScoringLib.io.reading import find_series
from CACScoringLib.run import ModelChoice, RunSettings

GB = 10**9
LARGE = 512 * 512 * 248


def scan(voxels, name="x", tmp="."):
    return CohortScan(name, tmp, name, voxels=voxels)


@pytest.fixture
def machine(monkeypatch):
    """Sets cores and free memory, bytes."""

    def make(cores, available):
        monkeypatch.setattr(cohort_memory, "core_count", lambda: cores)
        monkeypatch.setattr(cohort_memory, "available_memory_bytes", lambda: available)

    return make


class TestBytes:
    @pytest.mark.parametrize(
        ("voxels", "asked", "measured_mb"),
        [
            (256 * 256 * 64, Asked(networks=False), 498),
            (512 * 512 * 400, Asked(networks=False), 1135),
            (LARGE, Asked(networks=False, scene=True), 1302),
            (256 * 256 * 64, Asked(), 846),
            (512 * 512 * 128, Asked(), 1446),
            (LARGE, Asked(estimates=True), 2263),
            (LARGE, Asked(estimates=True, scene=True), 2575),
            (512 * 512 * 400, Asked(estimates=True, scene=True), 3379),
        ],
    )
    def test_bound_what_was_measured(self, voxels, asked, measured_mb):
        assert measured_mb * 10**6 < scoring_bytes(voxels, asked) < 1.5 * measured_mb * 10**6

    def test_what_is_asked_for_counts(self):
        asked = (Asked(False), Asked(), Asked(estimates=True), Asked(estimates=True, scene=True))
        needs = [scoring_bytes(LARGE, one) for one in asked]
        assert needs == sorted(set(needs))


class TestPlan:
    def test_as_many_as_memory_has_room_for(self, machine):
        machine(16, 8 * GB)
        many = [scan(LARGE)] * 20
        assert plan(many, Asked(estimates=True, scene=True)).count == 2  # not the 4 that 2 GB each would make
        assert plan(many, Asked(networks=False)).count == 7
        assert plan([scan(256 * 256 * 64)] * 20, Asked()).count == 7

    def test_a_large_scan_among_small_ones_keeps_none_of_them_back(self, machine):
        machine(4, 8 * GB)
        found = plan([scan(256 * 256 * 64)] * 9 + [scan(10 * LARGE)], Asked())
        assert found.count == 4
        assert found.needs[0] == scoring_bytes(256 * 256 * 64, Asked())
        assert [found.fits(index) for index in range(10)] == [True] * 9 + [False]

    def test_fewer_workers_have_more_memory_each(self, machine):
        machine(16, 8 * GB)
        assert plan([scan(LARGE)] * 9 + [scan(256 * 256 * 64)], Asked()).count == 3

    def test_workers_elsewhere_have_their_own_memory(self, machine):
        machine(4, GB)
        found = plan([scan(LARGE)] * 9, Asked(), workers=3, local=False)
        assert found.count is None
        assert found.fits(0)

    def test_one_process_is_always_allowed(self, machine):
        machine(1, GB // 10)
        assert plan([scan(LARGE)] * 3, Asked()).count == 1

    def test_the_users_word_counts(self, machine):
        machine(16, GB)
        found = plan([scan(LARGE)] * 9, Asked(), workers=5)
        assert found.count == 5
        assert plan([scan(LARGE)] * 2, Asked(), workers=5).count == 2


class TestVoxels:
    def test_of_an_image_file(self, tmp_path):
        sitk.WriteImage(sitk.Image((7, 5, 3), sitk.sitkInt16), tmp_path / "a.nii.gz")
        assert voxels_of(CohortScan("a", tmp_path / "a.nii.gz", "a")) == 105

    def test_of_what_cannot_be_read(self, tmp_path):
        (tmp_path / "a.nii.gz").write_bytes(b"no image")
        for name in ("a.nii.gz", "gone.nrrd"):
            assert voxels_of(CohortScan("a", tmp_path / name, "a")) == 0

    def test_of_a_folder_that_a_table_lists(self, tmp_path):
        write_series(tmp_path / "p", chest_hu(4))
        assert voxels_of(CohortScan("p", tmp_path / "p", "p")) == 4 * SLICE_PIXELS

    def test_of_series_that_were_searched_for(self, tmp_path):
        for number, slices in ((3, 4), (4, 6)):
            tags = {"SeriesNumber": number}
            write_series(tmp_path / "p", chest_hu(slices), tags=tags, name=f"{number}-{{}}".format)
        found = search(tmp_path, tmp_path / "out")
        scans = scans_of_folder(tmp_path, found, [find_series(folder) for folder in found.folders])
        assert [voxels_of(one) for one in scans] == [4 * 12 * 14, 6 * 12 * 14]


def test_a_cohort_is_scored_by_the_plan(tmp_path, machine, monkeypatch):
    given = []

    class Watched(InThisProcess):
        def __init__(self, count, prepare, memory_bytes, *rest):
            super().__init__(count, prepare)
            self._given = (count, memory_bytes)

        def run(self, jobs, needs=None, alone=False):
            given.append((*self._given, needs, alone))
            return super().run(jobs, needs)

    monkeypatch.setattr(cohort, "Workers", Watched)
    machine(8, 3 * GB)
    rows = []
    for n in range(3):
        image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
        sitk.WriteImage(image, tmp_path / f"{n}.nrrd")
        rows.append({"ct": f"{n}.nrrd"})
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, ["ct"])
        table.writeheader()
        table.writerows(rows)
    score_cohort(tmp_path / "t.csv", tmp_path / "out", RunSettings(), ModelChoice(threshold_only=True))
    expected = plan([scan(120)] * 3, Asked(networks=False))
    assert expected.count == 3
    assert given == [(3, 3 * GB, list(expected.needs), False), (3, 3 * GB, [], True)]
