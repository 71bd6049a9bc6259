"""The command line from end to end: on a small synthetic scan, and on every real scan at hand."""

import importlib.util
import io
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from handmade_networks import untrained
from lesion_scans import write_ct, write_image, write_labels

from CACScoringLib.cli import main as cli
from CACScoringLib.models import cards as models

pytestmark = pytest.mark.usefixtures("bundled")

FILES = [
    *("facts.npz", "features.csv", "heart.nii.gz", "lesions.csv", "lesions.nii.gz"),
    *("report.html", "scene.mrb", "scores.json"),
]


@pytest.fixture
def case(tmp_path):
    """Paths of a CT with one 16 mm² lesion at 250 HU, its heart mask and its lesion labels."""
    ct, lesions = write_ct(tmp_path / "scan.nii.gz"), write_labels(tmp_path / "labels.nrrd")
    return {"ct": str(ct), "heart": str(tmp_path / "heart.nrrd"), "lesions": str(lesions)}


def score(case, output, *options, scene=False, **sections):
    """Score the case, by default without a scene. sections: of the settings."""
    settings = json.dumps({"results": {"scene": scene}, **sections})
    words = ["score", case["ct"], "--heart", case["heart"], "--output", str(output), "--settings", settings]
    return cli.main([*words, *options])


def result(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def test_score_writes_every_result_and_prints_the_total(case, tmp_path, capsys):
    assert score(case, tmp_path / "out", "--lesions", case["lesions"], scene=True) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    assert result(tmp_path / "out")["methods"]["threshold"]["total"]["agatston"] == pytest.approx(32)
    assert "32.0" in capsys.readouterr().out


def test_totals_as_json_are_those_of_the_written_result(case, tmp_path, capsys):
    assert score(case, tmp_path / "out", "--lesions", case["lesions"], "--json") == 0
    printed, written = json.loads(capsys.readouterr().out), result(tmp_path / "out")
    methods = printed.pop("methods")
    assert printed == {name: written[name] for name in ("schema", "input", "warnings", "categories")}
    for name, method in methods.items():
        assert method.items() <= written["methods"][name].items()
    assert methods["threshold"]["total"]["agatston"] == pytest.approx(32)


def test_the_library_is_run_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["CACScoringLib", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("CACScoringLib", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("cac ")


def test_fat_within_a_given_pericardium(case, tmp_path):
    assert score(case, tmp_path / "out", "--pericardium", case["heart"]) == 0
    fat = result(tmp_path / "out")["epicardial_fat"]
    assert (fat["volume_cm3"], fat["source"]) == (0, "given")
    assert (tmp_path / "out" / "pericardium.nii.gz").is_file()


def test_a_second_run_keeps_the_first_result(case, tmp_path, capsys):
    score(case, tmp_path / "out")
    before = (tmp_path / "out" / "scores.json").read_bytes()
    assert score(case, tmp_path / "out") == cli.BAD_USAGE
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "scores.json").read_bytes() == before
    assert score(case, tmp_path / "out", "--overwrite", "--lesions", case["lesions"], "--reader", "Ann") == 0
    assert result(tmp_path / "out")["methods"]["threshold"]["reviewed"]


def test_mass_from_an_insert_of_known_density(case, tmp_path):
    ct = sitk.ReadImage(case["ct"])
    insert = np.zeros(ct.GetSize()[::-1], np.uint8)
    insert[5, 20:24, 20:24] = 1
    path = str(write_image(insert, tmp_path / "insert.nrrd"))
    score(case, tmp_path / "out", scan={"calibration_insert": [path, 200]})
    assert result(tmp_path / "out")["rules"]["threshold"]["calibration_mg_per_mm3_hu"] == pytest.approx(0.2 / 250)
    assert result(tmp_path / "out")["methods"]["threshold"]["total"]["mass_mg"] == pytest.approx(
        0.2 / 250 * (250 - 40) * 16 * 3, rel=0.01
    ), "what the lesion holds above its background"


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"rules": {"calibration_mg_per_mm3_hu": 0}}, "calibration"),
        ({"percentile_table": "missing.csv", "sex": "F", "age_years": 50}, "missing.csv"),
        ({"sex": "X"}, "The setting sex is 'X'. Write F or M"),
        ({"age_years": -5}, "The setting age_years is -5. Give an age from 0 to 120"),
    ],
)
def test_bad_input_ends_with_one_clear_line(case, tmp_path, capsys, scoring, message):
    reviewed = ["--lesions", case["lesions"], "--reader", "Ann"]
    assert score(case, tmp_path / "out", *reviewed, scoring=scoring) == cli.BAD_INPUT
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()


def test_progress_as_json_lines(case, tmp_path, capsys):
    score(case, tmp_path / "out", "--progress", "json")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    steps = [e["step"] for e in events if e["event"] == "step"]
    assert steps == ["reading", "heart", "acquisition", "lesions", "scores", "report"]
    assert all(e["count"] == len(steps) for e in events if e["event"] == "step")
    assert "unreviewed" in [e["code"] for e in events if e["event"] == "warning"]
    assert events[-1] == {"event": "done", "output": str(tmp_path / "out")}


@pytest.mark.long
def test_models_that_come_with_cac_are_used_unless_told_otherwise(case, tmp_path, bundled, capsys):
    for network in ("slices", "decomposition"):
        untrained(network, f"our-{network}", bundled)
    assert score(case, tmp_path / "default") == 0
    assert [m["name"] for m in result(tmp_path / "default")["models"]] == ["our-slices", "our-decomposition"]
    assert score(case, tmp_path / "clinical", "--threshold-only") == 0
    assert set(result(tmp_path / "clinical")["methods"]) == {"threshold"}
    untrained("decomposition", "my-map", tmp_path / "installed")
    assert score(case, tmp_path / "own", "--model", "my-map") == 0
    assert [m["name"] for m in result(tmp_path / "own")["models"]] == ["our-slices", "my-map"]
    with pytest.raises(SystemExit, match=str(cli.BAD_USAGE)):
        score(case, tmp_path / "both", "--model", "my-map", "--threshold-only")
    assert "not allowed with" in capsys.readouterr().err


def test_without_openvino_the_clinical_rule_alone_is_scored(case, tmp_path, bundled, monkeypatch, capsys):
    """Warn, as in 3D Slicer before OpenVINO is installed; fail only if a model was named."""
    for network in ("slices", "decomposition"):
        untrained(network, f"our-{network}", bundled)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    assert score(case, tmp_path / "out") == 0
    data = result(tmp_path / "out")
    assert set(data["methods"]) == {"threshold"}
    assert "openvino" in next(w["message"] for w in data["warnings"] if w["code"] == "networks-left-out")
    assert score(case, tmp_path / "named", "--model", "our-slices") == cli.BAD_INPUT
    assert "Install them" in capsys.readouterr().err


def test_models_that_are_missing_named_twice_or_damaged_are_reported(case, tmp_path, capsys):
    path = untrained("slices", "my-slices", tmp_path / "installed")
    for names, message in ((["other"], "no model 'other'"), (["my-slices"], ""), (["my-slices"] * 2, "for 'slices'")):
        assert score(case, tmp_path / "out", *(f"--model={name}" for name in names)) == cli.BAD_INPUT
        assert message in capsys.readouterr().err
    assert cli.main(["models", "list"]) == cli.main(["models", "verify"]) == 0
    assert "compact    user; used with --model my-slices only\nmy-slices: whole" in capsys.readouterr().out
    path.with_suffix(".safetensors").write_bytes(b"broken")
    assert cli.main(["models", "verify"]) == cli.BAD_INPUT


@pytest.mark.parametrize("kind", ["auto", "none"])
def test_an_interruption_is_no_error(kind, monkeypatch, capsys):
    monkeypatch.setattr(models, "list_models", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["models", "list", "--progress", kind]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"


def test_names_that_a_terminal_cannot_show(tmp_path, monkeypatch):
    """Names of files on a disk may be no UTF-8."""
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stderr)
    assert cli.main(["score", os.fsdecode(b"sc\xe4n.nii.gz"), "--output", str(tmp_path / "out")]) == 3
    stderr.flush()
    assert rb"sc\udce4n.nii.gz" in stderr.buffer.getvalue()


def test_control_characters_of_an_unknown_option_do_not_reach_the_terminal(capsys):
    with pytest.raises(SystemExit):
        cli.main(["score", "ct.nii.gz", "\x1b[31m"])
    assert (message := capsys.readouterr().err).endswith("unrecognized arguments:  [31m\n")
    assert "\x1b" not in message


@pytest.mark.parametrize("option", ["--threshold", "--ouptut=x"])
def test_options_are_written_out(option, capsys):
    with pytest.raises(SystemExit, match=str(cli.BAD_USAGE)):
        cli.main(["score", "ct", option])
    assert f"unrecognized arguments: {option}; did you mean --" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--out", "x"], ["--out=x", "--scen"]])
def test_mistyped_required_option_gets_a_suggestion(options, capsys):
    with pytest.raises(SystemExit, match=str(cli.BAD_USAGE)):
        cli.main(["compare", "a", "b", *options])
    assert "did you mean --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["scor", "ct"], "did you mean score?"),
        (["Model"], "did you mean models?"),
        (["models", "instal"], "did you mean install?"),
        (["score", "ct", "--device", "cuda0"], "did you mean cuda?"),
        (["xyz"], "choose from"),
    ],
)
def test_a_mistyped_command_or_choice_gets_a_suggestion(words, hint, capsys):
    with pytest.raises(SystemExit, match=str(cli.BAD_USAGE)):
        cli.main(words)
    message = capsys.readouterr().err
    assert hint in message
    assert ("did you mean" in message) == (words != ["xyz"])


def test_short_names_of_options(case, tmp_path, capsys):
    words = ("--heart", case["heart"], "--threshold-only", "-q")
    assert cli.main(["score", case["ct"], "-o", str(tmp_path / "out"), *words]) == 0
    assert (tmp_path / "out" / "scores.json").is_file()
    assert "Warning" not in capsys.readouterr().err


def test_a_settings_file_may_begin_with_a_byte_order_mark(case, tmp_path):
    file = tmp_path / "settings.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"scoring": {"rules": {"minimum_area_mm2": 20}}}).encode())
    assert score(case, tmp_path / "out", "--settings", str(file), "--threshold-only") == 0
    assert result(tmp_path / "out")["methods"]["threshold"]["total"]["agatston"] == 0


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("command", [["score"], ["info"], ["compare", "other"], ["score", "--settings"]])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Path("loop.nrrd").symlink_to("loop.nrrd")
    for name in ("loop.nrrd", f"{'x' * 300}.nrrd"):
        assert cli.main([*command, name]) in (2, 3)
        assert "Error: " in capsys.readouterr().err
