"""Every way round the record of readings is found by `cac review --verify`, or refused."""

import csv
import json
import shutil
import time
from datetime import datetime, timedelta

import pytest
from review_server import act

from CACScoringLib.cli import main as scoring
from CACScoringLib.core.errors import JournalError, OutputError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.journals import PLAN, REGISTER, file_of, journal_of, reading_by
from CACScoringLib.readings.work_list import plan_of
from CACScoringLib.record.columns import READ_LESION
from CACScoringLib.review import chain
from CACScoringLib.review import journal as journal_module
from CACScoringLib.review.journal import Journal, JournalEntry
from CACTrainingLib.browser.agreement import AGREEMENT, LESIONS, READINGS
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.safety import Gate
from CACTrainingLib.browser.serving import reviewing
from CACTrainingLib.browser.verification import verify_readings
from CACTrainingLib.cli.main import main
from CACTrainingLib.cli.review import ReviewOptions, serve_arguments

ANN, BOB = reading_by("Ann"), reading_by("Bob")
READERS = ("Ann", "Bob")


def as_another_user(monkeypatch, folder):
    """Write as a user with another data folder, and so another key."""
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(folder))


@pytest.fixture(autouse=True)
def _own_key(tmp_path, monkeypatch):
    as_another_user(monkeypatch, tmp_path / "data")


@pytest.fixture(scope="module")
def read(written, tmp_path_factory):
    """Results with a plan, which Ann and Bob have read for a scan, with Ann's export, and the user's data."""
    folder = tmp_path_factory.mktemp("read")
    results = shutil.copytree(written, folder / "results")
    with pytest.MonkeyPatch.context() as user:
        as_another_user(user, folder / "data")
        plan_of(results, cases_in(results), READERS, 0.0, blind=True)
        with reviewing(*serve_arguments(ReviewOptions(results, reader=READERS))):
            pass
        case = planned(results)
        for reading, reader in ((BOB, "Bob"), (ANN, "Ann")):
            review = OpenReview(case, reading, case.scan())
            act(review, "accept", reader)
        review.export("Ann", dicom=False)
    return folder


def planned(results):
    return next(case for case in cases_in(results) if case.name == "one")


@pytest.fixture
def case(read, results, tmp_path):
    shutil.rmtree(results)
    shutil.copytree(read / "results", results)
    shutil.copytree(read / "data", tmp_path / "data")
    return planned(results)


def faults(results, *keys, noted=()):
    return [text for text, is_right in verify_readings(results, keys, noted) if not is_right]


def verify(results, *options):
    return main(["review", str(results), "--verify", *options])


def forge(file, *names):
    """Change a number, or any text, in a file of JSON."""
    content = json.loads(file.read_text(encoding="utf-8"))
    *path, last = names[:-1]
    part = content
    for name in path:
        part = part[name]
    part[last] = names[-1]
    file.write_text(json.dumps(content), encoding="utf-8")


def test_an_unchanged_record_is_proven(results, case, capsys):
    assert (faults(results), verify(results, "--recompute")) == ([], 0)
    out = capsys.readouterr().out
    assert journal_of(case, ANN).hashes[-1] in out
    assert "computed again from voxels and journal: the same" in out


def test_a_changed_line_is_named(results, case, capsys):
    journal = file_of(case, ANN)
    lines = journal.read_text(encoding="utf-8").splitlines()
    for number in range(1, len(lines) + 1):
        changed = json.dumps(json.loads(lines[number - 1]) | {"reader": "Eve"})
        journal.write_text("\n".join([*lines[: number - 1], changed, *lines[number:]]) + "\n", encoding="utf-8")
        assert verify(results) == 3
        assert f"{journal}: line {number} was changed after it was written" in capsys.readouterr().out
    with pytest.raises(JournalError, match="was changed"):
        journal_of(case, ANN)


@pytest.mark.parametrize("reading", [ANN, BOB])
def test_a_cut_or_deleted_journal_is_found_with_and_without_an_export(results, case, reading):
    file = file_of(case, reading)
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")
    assert any("was cut or replaced" in fault for fault in faults(results))
    file.unlink()
    assert any("is missing, and was begun" in fault for fault in faults(results))
    shutil.rmtree(case.folder)
    assert any(f"The result {case.folder}" in fault for fault in faults(results))


def test_an_edited_plan_is_found_and_binds_journals(results, case):
    plan = results / PLAN
    plan.write_text(plan.read_text(encoding="utf-8").replace(",1,", ",0,"), encoding="utf-8")
    text = " ".join(faults(results))
    assert f"{PLAN} was changed or removed" in text
    assert "begun under another reading plan" in text
    with pytest.raises(JournalError, match="another reading plan"):
        journal_of(case, ANN)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: forge(folder / "scores.json", "methods", "threshold", "total", "agatston", 12.0),
        lambda folder: forge(folder / "scores.json", "review", "confirmations", "threshold", "reader", "Eve"),
        lambda folder: forge(folder / "scores.json", "review", None),
        lambda folder: forge(folder / "scores.json", "input", "name", "another"),
        lambda folder: (folder / "lesions.csv").write_text("lesion\n", encoding="utf-8"),
        lambda folder: (folder / "scores.json").unlink(),
        lambda folder: (folder / "calcium.csv").touch(),
        lambda folder: shutil.copytree(folder, folder / "copy"),
        lambda folder: shutil.copytree(folder, folder.parent / "reviewed"),
        lambda folder: folder.rename(folder.parent / "reviewed"),
        lambda folder: folder.rename(folder.parent.parent / "two" / folder.name),
        shutil.rmtree,
    ],
)
def test_a_forged_moved_or_deleted_export_is_found(results, case, change):
    folder = case.folder / f"reviewed-{file_of(case, ANN).stem}"
    (folder / ".DS_Store").touch()
    assert faults(results) == []
    change(folder)
    assert any("reviewed" in fault for fault in faults(results))


@pytest.mark.parametrize(
    "name", ["lesions.nii.gz", "heart.nii.gz", "lesions.csv", "report.html", "calcium_map.nii.gz", "pericardium.nii.gz"]
)
def test_a_changed_added_or_removed_file_of_a_result_is_found(results, case, name):
    file = case.folder / name
    is_present = file.is_file()
    file.write_bytes(b"another")
    assert any(f"one/{name} changed since it was begun" in fault for fault in faults(results))
    file.unlink()
    assert bool(faults(results)) == is_present


def test_changed_tables_of_a_cohort_are_found_and_later_readings_know_new_ones(results, case):
    for name in ("cohort.csv", "dictionary.csv"):
        before = (results / name).read_bytes() if (results / name).exists() else None
        (results / name).write_bytes(b"another")
        assert any(f"{name} changed" in fault for fault in faults(results))
        (results / name).unlink() if before is None else (results / name).write_bytes(before)
    assert faults(results) == []
    (results / "dictionary.csv").write_text("of a run with more scans", encoding="utf-8")
    OpenReview(case, reading_by("Ann", "again"), case.scan()).spend("Ann", 1.0)
    assert faults(results) == []


def test_a_map_changed_beside_the_same_result_scored_again_is_found(results, case):
    forge(case.folder / "scores.json", "provenance", {"created": "later"})
    (case.folder / "lesions.nii.gz").write_bytes(b"another")
    assert any("one/lesions.nii.gz changed" in fault for fault in faults(results))


def test_a_plan_binds_without_options_and_in_the_folder_of_a_scan(results, case, capsys):
    work = serve_arguments(ReviewOptions(results, reader=("Ann",)))[1]
    assert (work.double, work.blind) == (True, True)
    with pytest.raises(OutputError, match="plans no scans for Eve"):
        serve_arguments(ReviewOptions(results, reader=("Eve",)))
    with pytest.raises(OutputError, match="are planned in"):
        serve_arguments(ReviewOptions(case.folder, ct=case.ct, reader=("Ann",)))


def test_a_result_with_readings_is_not_replaced(results, case):
    with pytest.raises(OutputError, match="has been read"):
        OutputFolder(case.folder, overwrite=True)
    scan = str(case.ct)
    assert scoring.main(["score", scan, "--output", str(case.folder), "--overwrite"]) == 2
    assert scoring.main(["cohort", str(case.ct.parent), "--output", str(results), "--overwrite"]) == 2
    assert faults(results) == []


def test_journals_stay_valid_beside_the_same_result_scored_again(results, case):
    forge(case.folder / "scores.json", "provenance", {"created": "later"})
    forge(case.folder / "scores.json", "seconds", {"reading": 9.0})
    assert faults(results) == []
    forge(case.folder / "scores.json", "methods", "threshold", "total", "agatston", 12.0)
    assert any("review of another result" in fault for fault in faults(results))


def test_a_site_file_leaves_reviewed_scores_to_the_review(tmp_path, case, monkeypatch, capsys):
    assert scoring.main(["models", "pin", str(tmp_path / "site.json"), "--name", "Lab", "--threshold-only"]) == 0
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("CAC_SITE"):
            monkeypatch.setenv(*line.split("=", 1))
    lesions = ["--lesions", str(case.folder / "lesions.nii.gz"), "--reader", "Ann", "--threshold-only"]
    assert scoring.main(["score", str(case.ct), *lesions, "--output", str(tmp_path / "out")]) == 3
    assert "cac review, which keeps a journal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tokens_end_with_the_server_and_can_be_revoked():
    gate, next_gate = Gate(READERS), Gate(READERS)
    token, cookie = gate.token("Ann"), gate.cookie("Ann")
    assert gate.opens("Ann", token)
    assert gate.session(cookie)[0] == "Ann"
    assert not next_gate.opens("Ann", token)
    assert next_gate.session(cookie) is None
    gate.revoke("Ann")
    assert not gate.opens("Ann", token)
    assert gate.session(cookie) is None
    assert gate.opens("Bob", gate.token("Bob"))


def test_servers_and_logins_are_registered(results, start):
    server = start("--reader", "Ann")
    client = server.client("Ann")
    assert client.post("/revoke", {}) == (200, {})
    assert client.raw("GET", "/api/work", headers={"Cookie": client.cookie})[0] == 401
    kinds = [line["kind"] for line in chain.read_lines(results / REGISTER)[0]]
    assert kinds == ["server", "login", "revoked"]


def test_a_journal_written_by_hand_is_in_no_register(results, case):
    forged = journal_of(case, reading_by("Eve"))
    header = forged._header
    Journal(forged.file, header["result"], header["plan"]).append(JournalEntry("time", "Eve", "", 0, True, 12))
    assert any("is not in review_register" in fault for fault in faults(results))


def test_a_record_written_without_the_key_is_not_signed(results, case, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    assert journal_of(case, ANN).lines[-1]["signature"]
    shutil.rmtree(file_of(case, ANN).parent)
    (results / REGISTER).unlink()
    with monkeypatch.context() as forger:
        as_another_user(forger, tmp_path / "forger")
        OpenReview(case, ANN, case.scan()).spend("Ann", 1.0)
    OpenReview(case, ANN, case.scan()).spend("Ann", 1.0)
    unsigned = [fault for fault in faults(results) if "is signed by" in fault]
    assert len(unsigned) == 2, "the true key vouches for its own lines alone"
    file = results / REGISTER
    lines = [json.loads(line) | {"signature": ""} for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert any("is not signed" in fault for fault in faults(results))


def test_lines_of_several_keys_are_right_if_all_are_named(results, case, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    site_key = chain.public_key()
    with monkeypatch.context() as colleague:
        as_another_user(colleague, tmp_path / "colleague")
        OpenReview(case, BOB, case.scan()).spend("Bob", 1.0)
        key = chain.public_key()
    OpenReview(case, BOB, case.scan()).spend("Bob", 1.0)
    assert (faults(results, site_key, key), verify(results, "--key", site_key, "--key", key)) == ([], 0)
    assert any(f"is signed by {key}, which --key does not name" in fault for fault in faults(results))
    assert faults(results, key)


def test_a_register_deleted_before_a_journal_is_read_anew_is_found(results, case):
    pytest.importorskip("cryptography")
    noted = chain.read_lines(results / REGISTER)[0][-1]["sha256"]
    assert faults(results, noted=[noted, journal_of(case, ANN).hashes[0]]) == []
    (results / REGISTER).unlink()
    shutil.rmtree(case.folder / f"reviewed-{file_of(case, ANN).stem}")
    for reading in (ANN, BOB):
        file = file_of(case, reading)
        file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:1]), encoding="utf-8")
        OpenReview(case, reading, case.scan()).spend(reading, 1.0)
    assert sum(f"{REGISTER} was replaced after it was begun" in fault for fault in faults(results)) == 2
    for reading in (ANN, BOB):
        file_of(case, reading).unlink()
    (results / REGISTER).unlink()
    OpenReview(case, ANN, case.scan()).spend("Ann", 1.0)
    assert faults(results) == [], "a wholly new record"
    assert verify(results, "--noted", noted) == 3
    assert any(f"Line {noted} is not in the record" in fault for fault in faults(results, noted=[noted]))


@pytest.mark.parametrize(("hours", "is_fault"), [(-24 * 30, True), (-1, True), (-0.01, False), (1, False)])
def test_a_clock_set_back_shows_in_the_register(results, case, monkeypatch, hours, is_fault):
    class Moved(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    with monkeypatch.context() as clock:
        clock.setattr(chain, "datetime", Moved)
        chain.register(results / REGISTER, "login", reader="Ann", place="here")
    assert any("the clock had gone back at line" in fault for fault in faults(results)) == is_fault
    chain.register(results / REGISTER, "login", reader="Ann", place="here")
    assert bool(faults(results)) == (is_fault or hours > 0), "a clock set forward is seen when it is set back"


def test_a_register_without_times_is_named(results, case):
    chain.append_lines(results / REGISTER, [{"kind": "login", "time": "yesterday"}])
    assert any("review_register.jsonl is damaged" in fault for fault in faults(results))


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_key_saves_nothing_and_is_named(case, tmp_path, content):
    pytest.importorskip("cryptography")
    review = OpenReview(case, ANN, case.scan())
    before = file_of(case, ANN).read_bytes()
    (key,) = (tmp_path / "data").rglob("signing.key")
    key.write_bytes(content)
    chain._key.cache_clear()
    with pytest.raises(JournalError, match=r"signing\.key is no key .* Restore it"):
        review.spend("Ann", 1.0)
    assert file_of(case, ANN).read_bytes() == before


FORGED = [
    *({"entries": "0", "journal_sha256": ""}, {"entries": "-1"}, {"entries": "x"}, {"agatston": "12"}, {"scan": "two"}),
    *({"journal": "", "entries": "", "journal_sha256": ""}, {"journal": "../two"}, {"lesion_site": "RCA"}),
    *({"voxels": "99"}, {"lesion": "9", "reader": "Bob"}, {"estimate": ".98"}),
]
"""Changed cells of a row of the tables of readings, of lesions or of agreement."""


def test_a_forged_table_is_found(results, case, tmp_path):
    tables = ["--tables", str(tmp_path / "tables")]
    for unread in cases_in(results):
        for reading, reader in ((BOB, "Bob"), (ANN, "Ann")):
            if unread.name != case.name:
                act(OpenReview(unread, reading, unread.scan()), "accept", reader)
    assert main(["review", str(results), "--reader", "Ann", "--reader", "Bob", *tables]) == 0
    assert verify(results, *tables) == 0
    for cells in FORGED:
        name = AGREEMENT if "estimate" in cells else LESIONS if cells.keys() & {*READ_LESION} else READINGS
        file = tmp_path / "tables" / name
        written = file.read_bytes()
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        rows[0] |= cells
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        assert verify(results, *tables) == 3, cells
        file.write_bytes(written)


@pytest.mark.parametrize("is_register", [True, False])
def test_a_full_disk_loses_nothing(case, monkeypatch, is_register):
    review = OpenReview(case, ANN, case.scan())
    before = len(review.journal.entries)
    fsync, calls = chain.os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 1 + is_register:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as disk:
        disk.setattr(chain.os, "fsync", full)
        message = "saved, but not noted in .*No space" if is_register else "not saved: .*No space"
        with pytest.raises(JournalError, match=message):
            review.spend("Ann", 5.0)
    assert len(journal_of(case, ANN).entries) == before + is_register
    OpenReview(case, ANN, case.scan()).spend("Ann", 5.0)
    assert faults(case.folder.parent) == []


def test_a_clock_that_goes_back_loses_nothing_and_is_reported(results, case, monkeypatch, capsys):
    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(journal_module, "datetime", Earlier)
    OpenReview(case, ANN, case.scan()).spend("Ann", 5.0)
    number = len(journal_of(case, ANN).entries)
    assert verify(results) == 0
    assert f"{number} entries, the clock had gone back at {number}, unchanged" in capsys.readouterr().out


@pytest.mark.long
def test_two_thousand_readings_are_verified_in_seconds(results, case, monkeypatch):
    monkeypatch.setattr(chain.os, "fsync", lambda descriptor: None)
    for number in range(2000):
        journal = journal_of(case, reading_by(f"R{number}"))
        journal.append(JournalEntry("time", f"R{number}", "", 1.0, False, 9.0))
        journal.append(JournalEntry("time", f"R{number}", "", 1.0, True, 9.0))
    start_s = time.process_time()
    assert faults(results) == []
    assert time.process_time() - start_s < 10
