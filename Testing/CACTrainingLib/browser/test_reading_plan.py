"""Reading plans, repetitions, and the tables of readings and their agreement."""

from dataclasses import replace

import pytest
from review_server import act
from study_tables import csv_rows

from CACScoringLib.core.errors import OutputError
from CACScoringLib.readings.journals import AGAIN, FIRST, PLAN, labels_of, reading_by
from CACScoringLib.readings.work_list import WorkList, plan_of
from CACTrainingLib.browser.agreement import lesions_of
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.page_state import rows_of
from CACTrainingLib.browser.project import cases_of
from CACTrainingLib.cli.main import main

READERS = ("Ann", "Bob")


@pytest.fixture
def cases(results):
    return cases_of(results, None)


def planned(results, cases, repeated=1 / 3, seed=0):
    return plan_of(results, cases, READERS, repeated, seed)


def read(case, reader, kind, sites):
    """Let a reader assign lesions to sites (LAD 2, LCX 3), and confirm."""
    review = OpenReview(case, reading_by(reader, kind), case.scan())
    ids = [lesion.id for lesion in review.review.lesions("threshold")]
    for lesion, site in zip(ids, sites, strict=False):
        act(review, "assign", reader, lesions=[lesion], site=site)
    act(review, "accept", reader)
    return ids


class TestPlan:
    def test_each_reader_reads_every_scan_once_and_some_again_at_the_end(self, results, cases):
        plan = planned(results, cases)
        for reader in READERS:
            readings = [reading for reading in plan if reading.reader == reader]
            assert [reading.kind for reading in readings] == [FIRST, FIRST, FIRST, AGAIN]
            assert sorted(reading.scan for reading in readings[:3]) == ["one", "three", "two"]
        assert len({reading.scan for reading in plan if reading.kind == AGAIN}) == 1

    def test_plan_is_kept_and_follows_from_the_seed(self, results, cases):
        plan = planned(results, cases, seed=3)
        assert planned(results, cases, seed=4) == plan, "the plan on the disk"
        assert plan_of(results, cases, READERS[:1], None, 0) == plan
        (results / PLAN).unlink()
        assert planned(results, cases, seed=3) == plan
        assert plan_of(results, cases, READERS, None, 0) == plan

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace(",three,", ",four,"), "is a plan of other scans"),
            (lambda text: text.replace("Bob", "Eve"), "plans no scans for Bob"),
            (lambda text: text.replace(",one,1", ",one,3"), "repetition is '3', not 1 or 2"),
        ],
    )
    def test_a_plan_that_does_not_fit_is_refused(self, results, cases, change, message):
        planned(results, cases)
        file = results / PLAN
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(OutputError, match=message):
            planned(results, cases)

    def test_without_a_request_or_out_of_range_there_is_none(self, results, cases):
        assert plan_of(results, cases, READERS, None, 0) == []
        with pytest.raises(OutputError, match="--repeat is 2"):
            planned(results, cases, repeated=2)
        assert not (results / PLAN).exists()

    def test_other_readings_and_a_date_lie_between_both_readings_of_a_scan(self, results, cases):
        scans = [f"s{n}" for n in range(30)]
        named = [replace(cases[0], folder=results / name) for name in scans]
        plan = plan_of(results, named, READERS, 0.5, washout="2999-01-01")
        for reader in READERS:
            order = [reading.scan for reading in plan if reading.reader == reader]
            again = order[30:]
            assert min(30 + n - order.index(scan) for n, scan in enumerate(again)) > 10
            assert again != [scan for scan in order[:30] if scan in again], "in another order"
        assert {reading.not_before for reading in plan if reading.kind == AGAIN} == {"2999-01-01"}

    def test_a_repetition_waits_for_its_date(self, results, cases):
        plan = plan_of(results, cases, READERS, 1.0, washout="2999-01-01")
        for case in cases:
            read(case, "Ann", FIRST, [])
        assert not WorkList(cases, READERS, True, plan=plan).may_read_again(cases[0], "Ann")
        early = [replace(reading, not_before="2020-01-01") for reading in plan]
        assert WorkList(cases, READERS, True, plan=early).may_read_again(cases[0], "Ann")


class TestWorkList:
    def test_rows_are_in_the_order_of_the_plan_and_a_repetition_follows_the_first_reading(self, results, cases):
        work = WorkList(cases, READERS, double=True, blind=True, plan=planned(results, cases))
        listed = rows_of(work, "Ann")
        places = [work.place_at("Ann", row["id"]) for row in listed]
        assert [(case.id, kind) for case, kind in places] == work.plan["Ann"]
        assert {row["reading"] for row in listed} == {FIRST}, "nothing shows the repetition"
        assert len({row["id"] for row in [*listed, *rows_of(work, "Bob")]} | {case.id for case in cases}) == 11
        assert [row["name"] for row in listed] == [f"Case {n}" for n in range(1, 5)]
        case = work.cases[work.plan["Ann"][-1][0]]
        assert not work.may_read_again(case, "Ann")
        for unread in cases:
            assert not work.may_read_again(case, "Ann"), "all first readings come before"
            read(unread, "Ann", FIRST, [])
        assert work.may_read_again(case, "Ann")
        assert not any(work.may_read_again(scan, "Ann") for scan in cases if scan is not case)
        assert {row["name"][:4] for row in rows_of(work, "Ann")} == {"Case"}, "still hidden"
        read(case, "Ann", AGAIN, [])
        alone = WorkList(cases, ["Ann"], double=True, blind=True, plan=planned(results, cases))
        assert not alone.is_closed, "Bob has not read"
        for scan in cases:
            assert not work.consensus_due(scan)
            read(scan, "Bob", FIRST, [])
        assert work.hides(case, "Ann", FIRST)
        read(work.cases[work.plan["Bob"][-1][0]], "Bob", AGAIN, [])
        assert work.is_closed
        assert alone.is_closed
        assert work.consensus_due(case)
        assert {row["name"] for row in rows_of(work, "Ann")} == {"one", "two", "three", f"{case.name} (again)"}
        assert "none is changed any more" in work.refusal(case, "Ann", AGAIN, to_change=True)
        assert not work.refusal(case, "Ann", AGAIN)

    def test_repetitions_have_addresses_of_their_own_also_if_not_blind(self, results, cases):
        work = WorkList(cases, READERS, double=True, plan=planned(results, cases))
        rows = rows_of(work, "Ann")
        assert [row["id"] for row in rows[:3]] == [case_id for case_id, _ in work.plan["Ann"][:3]]
        assert rows[3]["id"] not in work.cases
        assert work.place_at("Bob", rows[3]["id"]) is None
        assert not work.hides(cases[0], "Ann", FIRST)
        assert not work.is_closed


class TestTables:
    @pytest.fixture
    def tables(self, results, cases, tmp_path):
        """Ann and Bob read all scans; Bob calls a lesion of each LCX; Ann reads one again."""
        plan = planned(results, cases)
        for case in cases:
            self.ids = read(case, "Ann", FIRST, [2, 2])
            read(case, "Bob", FIRST, [3, 2])
        self.again = next(case for case in cases if case.folder.name == plan[-1].scan)
        read(self.again, "Ann", AGAIN, [2, 2])
        readers = [word for reader in READERS for word in ("--reader", reader)]
        command = ["review", str(results), *readers, "--double", "--tables", str(tmp_path / "tables")]
        assert main(command) == 2, "Bob has not read again"
        assert not (tmp_path / "tables").exists()
        read(self.again, "Bob", AGAIN, [3, 2])
        assert main(command) == 0
        return tmp_path / "tables"

    def test_readings_lesions_and_agreement_have_rows(self, results, tables):
        listed = csv_rows(tables / "readings.csv")
        assert [(row["reader"], row["repetition"]) for row in listed if row["scan"] == self.again.folder.name] == [
            ("Ann", "1"),
            ("Ann", "2"),
            ("Bob", "1"),
            ("Bob", "2"),
        ]
        assert len(listed) == 8
        assert all(row["agatston"] for row in listed)
        lesions, sites = csv_rows(tables / "reading_lesions.csv"), {}
        for row in lesions:
            sites.setdefault((row["scan"], row["lesion"]), {})[row["reader"], row["repetition"]] = row["lesion_site"]
        disputed = [read for read in sites.values() if len(set(read.values())) > 1]
        assert {(read["Ann", "1"], read["Bob", "1"]) for read in disputed} == {("LAD", "LCX")}
        assert len(disputed) == 3
        assert all(row["cac_version"] and row["created"] for row in (*listed, *lesions))
        assert main(["review", str(results), "--verify", "--tables", str(tables)]) == 0

        listed = {(row["first"], row["second"], row["measure"]): row for row in csv_rows(tables / "agreement.csv")}
        measures = ("kappa", "icc", "dice", "lesion_kappa")
        assert [key for key in listed if key[0] == "Ann"] == [
            *(("Ann", "Bob", measure) for measure in measures),
            *(("Ann", "Ann again", measure) for measure in measures),
        ]
        assert listed["Ann", "Bob", "dice"]["estimate"] == "1.0"
        assert float(listed["Ann", "Bob", "lesion_kappa"]["estimate"]) < 1
        assert listed["Ann", "Bob", "icc"]["scans"] == "3"
        for measure in ("dice", "lesion_kappa"):
            row = listed["Ann", "Bob", measure]
            assert row["interval"] == "binomial, patients"
            assert float(row["low"]) < float(row["estimate"]) <= float(row["high"])
        assert float(listed["Ann", "Bob", "dice"]["low"]) == pytest.approx(0.025 ** (1 / 3), abs=1e-3), (
            "of three of three"
        )
        assert (listed["Ann", "Ann again", "dice"]["scans"], listed["Ann", "Ann again", "kappa"]["estimate"]) == (
            "1",
            "",
        )

        # Lesions are parts with a single label in each reading.
        labels = [labels_of(self.again, reading_by(reader))["threshold"] for reader in ("Ann", "Bob")]
        lesions = list(lesions_of(self.again.folder, labels))
        assert ["LAD", "LCX"] in [[site for *_, site in lesion] for lesion in lesions]
        review = OpenReview(self.again, reading_by("Ann"), self.again.scan()).review
        assert sum(voxels for ((_, voxels, *_), _) in lesions) == sum(
            lesion.voxels for lesion in review.lesions("threshold")
        )


def test_tables_need_readers_who_read_alone(results, capsys):
    assert main(["review", str(results), "--tables", str(results / "tables")]) == 2
    assert "Add --double" in capsys.readouterr().err
