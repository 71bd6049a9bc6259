"""Tests of the watch with a peer and a scorer in this process, on a clock that advances only during sleeps."""

import pydicom
import pytest
from archive_peers import REPORT_CLASS, report_about, stub_scorer, web_peer
from dicom_files import save
from in_this_process import InThisProcess

from CACScoringLib.archive import watch as watching
from CACScoringLib.archive.journal import WatchSettings
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.archive.watch import Watch, open_watch
from CACScoringLib.core.errors import ArchiveUnauthorisedError, OutputError

EVERYTHING = SeriesFilter()


class Killed(BaseException):
    """Stand-in for SIGKILL, which no code catches."""


class Clock:
    """Clock whose sleeps end at once.

    Attributes:
        at_sleep: Functions to call during a sleep, by its number.
    """

    def __init__(self):
        self.now, self.sleeps, self.at_sleep = 1000.0, 0, {}

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.sleeps += 1
        if self.sleeps > 200:
            raise AssertionError("The watch does not end.")
        self.at_sleep.get(self.sleeps, lambda: None)()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(watching, "Workers", InThisProcess)


@pytest.fixture
def address(store):
    """Address of a DICOMweb peer; test_protocols.py tests the watch's requests with both protocols."""
    with web_peer(store) as address:
        yield address


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def messages():
    return []


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def run(archive, tmp_path, clock, messages, log):
    """Function that watches until nothing is left to do, and returns the states by number."""

    def watch(archive=archive, series_filter=EVERYTHING, **settings):
        settings = WatchSettings(**{"poll_seconds": 10, "settle_seconds": 30, "once": True, **settings})
        with open_watch(tmp_path / "out", {}) as journal:
            report = messages.append
            watch = Watch(archive, tmp_path / "out", series_filter, settings, journal, report, clock, clock.sleep)
            return [entry.state for entry in watch.run(stub_scorer(log))]

    return watch


def scorings(log):
    return log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []


class ChangedArchive:
    """An archive with some methods replaced."""

    def __init__(self, archive, **methods):
        self._archive = archive
        vars(self).update(methods)

    def __getattr__(self, name):
        return getattr(self._archive, name)


def raising(error):
    def fail(*_):
        raise error

    return fail


def reports(store):
    return [dataset for dataset in store.instances.values() if dataset.SOPClassUID == REPORT_CLASS]


def test_series_are_scored_and_the_results_sent_back(run, store, series, log, messages, tmp_path):
    """No message or file names a patient."""
    paths = series(PatientID="SECRET-7", PatientName="Doe^Jane")
    store.add(*paths, *series())
    assert run() == ["done", "done"]
    assert len(scorings(log)) == len(reports(store)) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == [
        *("000001", "000002", "journal.json", "series", "watch.csv", "watch.prom")
    ]
    assert list((tmp_path / "out" / "series").iterdir()) == []
    assert (tmp_path / "out" / "watch.csv").read_text(encoding="utf-8").splitlines()[1] == "1,done,4,1,000001,"
    written = [*messages, *map(str, (tmp_path / "out").rglob("*"))]
    written += [(tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("watch.csv", "journal.json")]
    for secret in ("SECRET-7", "Doe", pydicom.dcmread(paths[0]).SeriesInstanceUID):
        assert secret not in " ".join(written)


def test_an_incomplete_series_is_awaited(run, store, series, log, clock):
    paths = series()
    store.add(*paths[:2])
    clock.at_sleep = {2: lambda: store.add(paths[2]), 4: lambda: store.add(paths[3])}
    assert run() == ["done"]
    assert scorings(log) == [f"{pydicom.dcmread(paths[0]).SeriesInstanceUID} 4"]


def test_a_series_is_awaited_while_the_archive_is_away(run, store, series, log, clock):
    """Wait again for a scanner that could not send images for an hour."""
    paths = series()
    store.add(*paths[:2])

    def away():
        store.fail = 6
        clock.now += 3600

    clock.at_sleep = {1: away, 8: lambda: store.add(*paths[2:])}
    assert run() == ["done"]
    assert scorings(log)[0].endswith(" 4")


def test_a_series_that_grew_after_its_score_is_scored_again(run, store, series, log, messages, tmp_path):
    paths = series()
    store.add(*paths[:2])
    assert run() == ["done"]
    store.add(*paths[2:])
    assert run() == ["done"]
    assert [line.split()[1] for line in scorings(log)] == ["2", "4"]
    assert [message for message in messages if message.startswith("CAUTION: Series 1 grew. It had 2 images")]
    assert (tmp_path / "out" / "watch.csv").read_text(encoding="utf-8").splitlines()[1].startswith("1,done,4,")
    assert "CAUTION: Delete the first result of series 1 in the archive." in messages


def test_only_series_that_match_the_filter_are_scored(run, store, series, log):
    store.add(*series(PatientID="P2"), *series(), *series(Modality="MR"), *series(SliceThickness=5, PatientID="P2"))
    localizer = series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PatientID="P2")
    store.add(*localizer, *series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", PatientID="P2"))
    states = run(series_filter=SeriesFilter(patient_id="P2", thickness_mm=(2, 4)))
    assert sorted(states) == ["done", "skipped", "skipped", "skipped"]
    assert len(scorings(log)) == 1


def test_a_failed_scan_does_not_stop_others_and_is_counted(run, store, series, log, tmp_path):
    store.add(*series(), *series(), *series(SeriesDescription="bad"))
    for scored in (3, 4):
        assert sorted(run()) == ["done", "done", "failed"]
        assert len(scorings(log)) == scored, "the failed one is tried again by the next run"
    lines = (tmp_path / "out" / "watch.prom").read_text(encoding="utf-8").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    stated = [values[f"cac_watch_{name}"] for name in ('series{state="done"}', 'series{state="failed"}', "archive_up")]
    assert stated == ["2", "1", "1"]
    assert [values[f"cac_watch_scoring_seconds_{name}"] for name in ("count", "sum")] == ["2", "3.0"]
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert all(name.startswith(tuple(names)) for name in values)


def test_severe_warnings_of_a_series_are_printed(run, store, series, messages):
    store.add(*series(SeriesDescription="doubtful"))
    assert run() == ["done"]
    assert messages == ["CAUTION: Series 1: The blood is bright.", "Series 1: done. 1 objects sent"]


def test_results_of_another_watch_are_not_repeated(run, store, series, log, tmp_path):
    paths = series()
    store.add(*paths, save(report_about(pydicom.dcmread(paths[0]), 4), tmp_path / "report.dcm"))
    assert run() == ["present"]
    assert scorings(log) == []


def test_foreign_reports_and_reports_of_other_series_do_not_count(run, store, series, tmp_path):
    first, second = series(StudyInstanceUID="1.2"), series(StudyInstanceUID="1.2")
    about_second = report_about(pydicom.dcmread(second[0]), 4)
    foreign = report_about(pydicom.dcmread(first[0]), 4)
    foreign.Manufacturer, foreign.SeriesInstanceUID, foreign.SOPInstanceUID = "Maker", "1.5", "1.5.1"
    store.add(*first, save(about_second, tmp_path / "a.dcm"), save(foreign, tmp_path / "b.dcm"))
    assert run() == ["done"]


def test_refused_access_ends_the_watch_at_once(run, archive):
    with pytest.raises(ArchiveUnauthorisedError):
        run(ChangedArchive(archive, find_series=raising(ArchiveUnauthorisedError("Closed."))))


def test_a_new_token_is_awaited(run, archive, store, series):
    store.add(*series(), *series())
    count = iter(range(100))

    def image_facts(series):
        if next(count) == 1:
            raise ArchiveUnauthorisedError("Run out.")
        return archive.image_facts(series)

    assert run(ChangedArchive(archive, image_facts=image_facts)) == ["done", "done"]


def test_results_that_are_refused_are_kept_and_sent_by_the_next_run(run, store, series, log):
    store.add(*series())
    store.refused_class = REPORT_CLASS
    assert run() == ["failed"]
    store.refused_class = None
    assert run() == ["done"]
    assert len(scorings(log)) == 1
    assert len(reports(store)) == 1


def test_a_full_disk_ends_the_watch_and_loses_nothing(run, archive, store, series):
    store.add(*series())
    with pytest.raises(OutputError, match="No space left"):
        run(ChangedArchive(archive, retrieve=raising(OSError(28, "No space left on device"))))
    assert run() == ["done"]


@pytest.mark.long
class TestKills:
    """Kill the watch at each of its steps in turn."""

    STEPS = ("find_series", "instance_uids", "image_facts", "retrieve", "store")

    def killing(self, archive, at, monkeypatch):
        """Return the archive, patched to raise Killed at a step: an entry in the journal or a request."""
        count = iter(range(10_000))

        def step(function, after):
            def killed(*arguments, **facts):
                number = next(count)
                if number == at and not after:
                    raise Killed
                result = function(*arguments, **facts)
                if number == at:
                    raise Killed
                return result

            return killed

        class KillingArchive:
            def __getattr__(self, name):
                return step(getattr(archive, name), after=at % 2)

        for name in ("observe", "settle", "postpone"):
            function = getattr(watching.ArchiveJournal, name)
            monkeypatch.setattr(watching.ArchiveJournal, name, step(function, after=at % 2))
        return KillingArchive()

    @pytest.mark.parametrize("at", range(24))  # so many steps are taken for two series
    def test_each_series_is_scored_once_and_none_is_lost(self, run, archive, store, series, log, at):
        store.add(*series(), *series())
        with pytest.MonkeyPatch.context() as patches, pytest.raises(Killed):
            run(self.killing(archive, at, patches))
        assert run() == ["done", "done"]
        assert len(reports(store)) == 2
        assert len(store.instances) == 10
        assert len(scorings(log)) == 2


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    for folder, reason in ((tmp_path, "holds no watch"), (tmp_path / "thesis.txt", "is a file")):
        with pytest.raises(OutputError, match=reason), open_watch(folder, {}):
            pass


def test_incomplete_results_are_removed(tmp_path):
    with open_watch(tmp_path / "out", {}):
        pass
    (tmp_path / "out" / ".work" / "000001").mkdir(parents=True)
    (tmp_path / "out" / "series" / ".000001.partial-x").mkdir(parents=True)
    with open_watch(tmp_path / "out", {}):
        assert not (tmp_path / "out" / ".work").exists()
        assert list((tmp_path / "out" / "series").iterdir()) == []
