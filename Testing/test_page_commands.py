"""Runs the commands of README and the pages, as a user would, in a folder of small data.

Each page has a folder in which files have the names that its commands use (CT, PROJECT), and its commands run in their
order. A new command of a page is run too, or fails. The two tutorials have tests that also check their sentences.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import radiograph_models
from digital_pairs import HEIGHTS_MM, POSES, SCANNER
from in_this_process import InThisProcess
from page_commands import ROOT, PageCommand, commands_of
from page_data import PATIENTS, Maker, annotate, scan_folder, share_out, write_patients

from CACScoringLib.models.cards import find_model, read_network, user_folder
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import RadiographNetConfig
from CACTrainingLib.browser import serving
from CACTrainingLib.cli import main as cli
from CACTrainingLib.cli import train
from CACTrainingLib.phantom.cohort import cohort as phantom
from CACTrainingLib.phantom.scanner.simulation import scan_grid
from CACTrainingLib.project.project import Project
from CACTrainingLib.radiograph import cohort
from CACTrainingLib.radiograph.train_super_resolution import SuperResolutionTraining

PAGES = {
    page.relative_to(ROOT).as_posix(): page
    for page in (
        ROOT / "README.md",
        *(p for f in ("user", "training", "papers") for p in (ROOT / "docs" / f).glob("*.md")),
    )
    if page.name not in ("tutorial.md", "tutorial-study.md")
}

DATA = {
    "README.md": ("CT",),
    "docs/user/archive.md": ("CT",),
    "docs/user/cohorts.md": ("FOLDER",),
    "docs/user/dicom.md": ("SERIES", "FOLDER"),
    "docs/user/radiographs.md": ("CT", "pa.dcm", "side.dcm"),
    "docs/user/review-in-browser.md": ("SCANS", "SCAN", "PROJECT"),
    "docs/user/scoring.md": ("CT",),
    "docs/user/serial-comparison.md": ("EARLIER", "LATER", "CT"),
    "docs/user/validation.md": ("REFERENCE", "CT", "Results_NLST.csv", "SCANS"),
    "docs/papers/van-velzen.md": ("data/scans",),
    "docs/training/networks.md": ("CT", "NEGATIVE_CT", "CALIBRATION", "PROJECT"),
    "docs/training/own-scans.md": ("SCANS", "REFERENCE"),
    "docs/training/projects.md": ("SCANS",),
    "docs/training/radiograph-models.md": ("EVENTS.csv", "TABLE"),
    "docs/training/studies.md": ("COCA",),
    "docs/training/whole-scan-models.md": ("sources.json",),
}
"""Files that the commands of a page take, made before the first of them (`page_data.Maker`)."""

RESUMED = (
    "./cac train decomposition --preset compact-discriminators-first "
    """--settings '{"loop": {"steps": 5300, "validate_every": 100}}' """
    "--data data/repeated --output repeated-map --resume"
)

NOT_RUN = {
    "./cac test": "runs all tests",
    "./cac cohort FOLDER --output DIR --cluster tcp://HEAD:8786": "needs a Dask scheduler",
    "./cac cohort FOLDER --output DIR --cluster slurm": "needs SLURM",
    RESUMED: "a training of two steps leaves nothing to resume",
    "./cac evaluate radiograph --data PROJECT --output radiographs": "needs many patients of each category",
    "./cac evaluate accuracy --data REFERENCE --output DIR --calibrate ours": "needs 20 patients",
    './cac evaluate reproducibility --data PAIRS --output STUDY --settings \'{"study": {"store_limits": true}}\'': (
        "needs patients within the calibration range, which small scans are not"
    ),
    "./cac review RESULTS --reader R1 --reader R2 --double --tables TABLES": "needs all scans read by both readers",
}
"""Commands that are only parsed, and why."""

SMALLER = {
    r"(--pairs|--single) \d+": r"\1 4",
    r"--patients \d+": "--patients 16",
    r"--count \d\d": "--count 1",
    "train vessels": "train vessels --steps 1",
    r"--minutes \d+": "--steps 1",
    "explain CT-cac 3": "explain CT-cac 1",
    "train NETWORK": "train slices",
    "export NAME": "export map-compact",
}
"""Parts of commands that make work of hours, and what makes it small."""

SETTINGS = {
    "train territories": {"patients": 1, "validation_patients": 1, "batch_size": 1, "loop": {"steps": 1}},
    "train lesions": {"patients": 1, "validation_patients": 1, "insertions": 1, "views": 1, "loop": {"steps": 1}},
    "train slices": {"loop": {"steps": 1}, "batch_size": 2},
    "train decomposition": {"loop": {"steps": 1}, "batch_size": 2},
    "train decomposition --preset compact-discriminators-first": {"loop": {"steps": 2, "validate_every": 1}},
    "train super-resolution": {"loop": {"steps": 1}},
    "train radiograph": {"training": {"loop": {"steps": 1}}},
    "radiographs digital": {"drawings": 1},
    "insert": {"sigma_mm": 0.6},
    "evaluate all": {"study": {"ablation_pairs": 1}},
    "evaluate radiograph": {"study": {"budget": {"folds": 2, "steps": 1}, "names": ["base"]}},
    "evaluate vessels": {"study": {"budget": {"folds": 2, "steps": 1}, "names": ["cnn-log"]}},
    "evaluate radiomics": {"study": {"budget": {"folds": 2}}},
}
"""Settings of small trainings and studies, added to those of commands that begin with these words."""


@pytest.fixture(scope="session")
def small_scans():
    """Function in place of `make_scan`: at low resolution, and each scan once."""
    make_scan, scans = phantom.make_scan, {}

    def make(number, scan_number, settings, patient=None):
        key = number, scan_number, settings.prevalence
        if key not in scans:
            usual = phantom.CohortSettings(prevalence=settings.prevalence)
            scans[key] = make_scan(number, scan_number, usual, patient)
        return scans[key]

    def numbers(settings, patients):
        """Patients of the page on whole-scan models are tested on others."""
        apart = 100 if settings.first_number == 1_530_000 else 0
        return [number + apart for number in PATIENTS.values()][:patients]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "draw_setup", lambda number, scan, settings: (SCANNER, POSES[scan - 1]))
        patch.setattr(phantom, "scan_grid", lambda scanner, heights_mm: scan_grid(scanner, HEIGHTS_MM))
        patch.setattr(phantom, "make_scan", make)
        patch.setattr(phantom.CohortSettings, "numbers", numbers)
        patch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)
        yield


@pytest.fixture(scope="session")
def patients(small_scans, tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("patients"))


@pytest.fixture(autouse=True)
def small(small_scans, monkeypatch, tmp_path):
    """Resample little, and start no processes."""
    for module in ("CACScoringLib.cohort.cohort", "CACTrainingLib.evaluation.jobs"):
        monkeypatch.setattr(f"{module}.Workers", InThisProcess)
    monkeypatch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", 60)
    monkeypatch.setattr("CACTrainingLib.browser.serving._serve", open_once)
    monkeypatch.setattr("CACTrainingLib.cli.review.REVIEW_PORT", 0)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("CACTrainingLib.training.cyclegan.unmet", lambda metrics: [])
    patients = {"training": [39], "validation": [22], "test": [39]}
    monkeypatch.setattr(SuperResolutionTraining, "numbers", lambda self: patients)
    monkeypatch.setattr(cohort, "MATRIX", 72)
    monkeypatch.setattr(cohort.phantom, "scan_grid", lambda scanner, heights_mm=None: scan_grid(scanner, HEIGHTS_MM))
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    monkeypatch.setenv("CAC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


async def open_once(server, settings):
    """Serve a review until its page was asked for once."""
    import aiohttp

    async with (
        serving.listening(server, settings) as origin,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        host = next(iter(serving.addresses(server, origin).values()), None)
        if host is not None:
            async with session.get(host) as response:
                assert response.status == 200


def end_plan(patients: Path) -> None:
    Path("RESULTS/reading_plan.csv").unlink()


def install_ours(patients: Path) -> None:
    learn("decomposition", Path("ours"))
    run(["models", "install", "ours.json"])


def install_radiographs(patients: Path) -> None:
    config = RadiographNetConfig(views=("PA", "lateral"), size=32, width=4)
    radiograph_models.save_untrained(user_folder(), "my-radiographs", config)


def segment(patients: Path) -> None:
    regions = str(scan_folder(patients) / "regions.nii.gz")
    run(["score", "SERIES", "--lesions", regions, "--reader", "R", "--dicom", "--output", "made"])
    shutil.copy("made/segmentation.dcm", "segmentation.dcm")


def annotate_project(patients: Path) -> None:
    project = Project.open(Path("PROJECT"))
    for scan, name in zip(project.scans, PATIENTS, strict=True):
        annotate(project, scan.id, scan_folder(patients, name))


def annotate_and_share_out(patients: Path) -> None:
    annotate_project(patients)
    share_out(Project.open(Path("PROJECT")))


BEFORE = {
    "./cac score SERIES --lesions segmentation.dcm": segment,
    "./cac score CT --lesions lesions.nii.gz": lambda patients: shutil.copy(
        scan_folder(patients) / "regions.nii.gz", "lesions.nii.gz"
    ),
    "./cac score CT --earlier FOLDER": lambda patients: run(["score", "EARLIER", "--output", "FOLDER"]),
    "./cac project split PROJECT": annotate_project,
    "./cac review RESULTS --reader ann": end_plan,
    "./cac score CT --model ours": install_ours,
    "./cac score --radiograph pa.dcm": install_radiographs,
    "./cac project check": lambda patients: share_out(Project.open(Path("PROJECT"))),
    "./cac train decomposition --preset real-slices": annotate_and_share_out,
}
"""Actions of a user that come before a command, by the words that it begins with."""


def learn(network: str, model: Path) -> None:
    """Give a model of one step the weights of the bundled one: what is made of it should find a heart."""
    if network in ("territories", "lesions", "slices", "decomposition"):
        card, weights = read_network(find_model(network).path)
        save_model(weights, replace(card, name=model.name), model.parent, overwrite=True)


def small_command(text: str) -> list[str]:
    """Words of a command with less work."""
    for pattern, smaller in SMALLER.items():
        text = re.sub(pattern, smaller, text)
    words = shlex.split(text)[1:]
    for begin, settings in SETTINGS.items():
        if " ".join(words).startswith(f"{begin} ") and "--help" not in words:
            n = words.index("--settings") + 1 if "--settings" in words else None
            if n is None:
                words += ["--settings", json.dumps(settings)]
            elif words[n].startswith("{"):
                words[n] = json.dumps(merged(json.loads(words[n]), settings))
            else:
                content = json.loads(Path(words[n]).read_text("utf-8"))
                Path(words[n]).write_text(json.dumps(merged(content, settings)), "utf-8")
    return words


def merged(settings: dict, changes: dict) -> dict:
    merged_parts = {
        name: merged(settings[name], changes[name])
        for name in settings.keys() & changes.keys()
        if isinstance(changes[name], dict)
    }
    return {**settings, **changes, **merged_parts}


def is_whole(words: list[str]) -> bool:
    """True for a command with all that it needs; sentences and tables also name commands without their arguments."""
    try:
        options = cli.make_parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # help
    return options.command != "score" or bool(options.ct or options.sample or options.radiograph)


def run(words: list[str]) -> int:
    try:
        return cli.main(words)
    except SystemExit as end:
        return end.code


def lacks_packages(command: PageCommand) -> bool:
    """True for commands on radiomics where the packages that they need are not installed."""
    return "radiomics" in command.words and find_spec("mirp") is None


def is_only_parsed(command: PageCommand) -> bool:
    """True for commands of NOT_RUN, and for those that a sentence or table names without their arguments."""
    return (
        command.text in NOT_RUN
        or lacks_packages(command)
        or (command.is_inline and not is_whole(small_command(command.text)))
    )


def parse(command: PageCommand, monkeypatch) -> None:
    """Parse a command; of a training, also read preset and settings."""
    if command.text in NOT_RUN and command.words != ["test"]:
        cli.make_parser().parse_args(command.words)
    if lacks_packages(command):
        assert command.is_inline or is_whole(command.words), command.text
    elif command.words[:1] == ["train"] and len(command.words) > 2:
        module = train._load(command.words[1])
        missing = [word for word in ("--output", "--data") if word not in command.words]
        with monkeypatch.context() as patch:
            patch.setattr(module, "train", lambda *_: None)
            patch.setattr("CACTrainingLib.training.grid.train_grid", lambda *_: None)
            assert run([*command.words, *(word for name in missing for word in (name, "x"))]) == 0, command.text


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a shell")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, patients, monkeypatch, capsys):
    Maker(patients).write(*DATA.get(page, ()))
    for command in commands_of(PAGES[page]):
        if is_only_parsed(command):
            parse(command, monkeypatch)
            continue
        for begin, action in BEFORE.items():
            if command.text.startswith(begin):
                action(patients)
        words = small_command(command.text)
        capsys.readouterr()
        code = run([*words, "--progress", "none"])
        assert code == 0, f"{page}: {command.text}\n{capsys.readouterr().err}"
        if words[0] in ("train", "calibrate") and "--help" not in words:
            network, option = (words[1], "--output") if words[0] == "train" else ("decomposition", "--decomposition")
            learn(network, Path(words[words.index(option) + 1].removesuffix(".json")))


def test_every_entry_of_the_tables_is_on_a_page():
    commands = [command.text for page in PAGES.values() for command in commands_of(page)]
    assert set(NOT_RUN) <= set(commands)
    for begin in (*BEFORE, *(f"./cac {begin}" for begin in SETTINGS)):
        assert any(text.startswith(begin) for text in commands), begin
    for pattern in SMALLER:
        assert any(re.search(pattern, text) for text in commands), pattern
    assert set(DATA) <= set(PAGES)


def test_a_command_in_a_comment_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```\n./cac info CT   # lists series\n```\nor `cac score`.\n", encoding="utf-8")
    assert [(command.words, command.is_inline) for command in commands_of(page)] == [
        (["info", "CT"], False),
        (["score"], True),
    ]
    page.write_text("```\n./cac info CT   # or ./cac score CT\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a comment holds a command"):
        commands_of(page)
