"""A site file pins models and settings; nothing else is scored under it, and results name it."""

import json
from functools import partial

import pytest
from small_ct import score_command, write_ct

from CACScoringLib import run
from CACScoringLib.cli import main as cli
from CACScoringLib.core import version
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.models import site as site_module
from CACScoringLib.models.cards import find_model
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.models.site import read_site
from CACScoringLib.record.score_record import read_result

OPTIONS = ("--threshold-only", "--settings", '{"scoring": {"normalisation": "off"}}')


@pytest.fixture
def pin(tmp_path, monkeypatch, capsys):
    """Function that pins with options of `cac models pin`, sets the environment, and returns the file."""

    def pinned(*options):
        file = tmp_path / "site.json"
        assert cli.main(["models", "pin", str(file), "--name", "Core lab", *options]) == 0
        variables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("CAC_SITE")]
        for name, _, value in (line.partition("=") for line in variables):
            monkeypatch.setenv(name, value)
        return file

    return pinned


def test_results_state_the_file_they_were_made_under(tmp_path, pin):
    """Facts of a scan are not pinned."""
    file = pin(*OPTIONS)
    write_ct(tmp_path, "nii")
    assert cli.main([*score_command(tmp_path), "--kvp", "120"]) == 0
    provenance = read_result(tmp_path / "out").provenance
    assert (provenance.site.name, provenance.site.sha256) == ("Core lab", file_sha256(file))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"under Core lab (SHA-256 {file_sha256(file)})" in page


def test_other_settings_are_refused(tmp_path, pin, capsys):
    pin("--threshold-only")
    write_ct(tmp_path, "nii")
    assert cli.main(score_command(tmp_path)) == cli.BAD_INPUT
    assert 'pins the scoring setting normalisation to "auto"; this run has "off"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_commit_is_refused(pin, monkeypatch):
    pin("--threshold-only", "--commit")
    site, _ = read_site()
    assert site.commit == version.commit()
    monkeypatch.setattr(site_module, "commit", lambda: "abc")
    with pytest.raises(CTError, match=f"pins commit {site.commit} of CAC; this is abc"):
        read_site()


@pytest.mark.long
def test_a_comparison_with_a_result_keeps_to_the_pins(tmp_path, pin, capsys, monkeypatch):
    write_ct(tmp_path, "nii")
    assert cli.main(score_command(tmp_path)) == 0
    # The heart of this small CT is not detected.
    monkeypatch.setattr(run, "ScanInput", partial(run.ScanInput, heart=tmp_path / "heart.nii.gz"))
    compare = ["compare", str(tmp_path / "out"), str(tmp_path / "ct.nii"), "--output", str(tmp_path / "compared")]

    def unpin(file):
        file.unlink()
        monkeypatch.delenv("CAC_SITE")

    file = pin("--threshold-only")
    assert cli.main(compare) == cli.BAD_INPUT
    assert "pins the scoring setting normalisation" in capsys.readouterr().err
    unpin(file)
    pin()
    assert cli.main(compare) == cli.BAD_INPUT
    assert "was made with other models than the site file of Core lab pins" in capsys.readouterr().err
    unpin(file)
    pin(*OPTIONS)
    assert cli.main(compare) == 0
    assert read_result(tmp_path / "compared" / "later").provenance.site.sha256 == file_sha256(file)


def test_the_model_of_radiographs_is_pinned_beside_those_of_cts(pin):
    pin("--threshold-only")
    site, _ = read_site()
    assert list(site.models) == ["radiograph"]
    site.check_model("radiograph", file_sha256(find_model("radiograph").path))
    assert not chosen_models(ModelChoice(threshold_only=True)).networks


def test_other_models_are_refused(pin):
    pin()
    bundled = chosen_models(ModelChoice())
    assert bundled.site[1].name == "Core lab"
    with pytest.raises(CTError, match="this run would use none"):
        chosen_models(ModelChoice(threshold_only=True))


def test_a_changed_model_is_refused(pin, monkeypatch):
    file = pin()
    content = json.loads(file.read_text(encoding="utf-8"))
    content["models"]["slices"]["card_sha256"] = "0" * 64
    file.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("CAC_SITE_SHA256", file_sha256(file))
    with pytest.raises(CTError, match=f"pins the model slices-compact with card {'0' * 64} for slices.*Install"):
        chosen_models(ModelChoice())


def change_content(**changes):
    def change(file, monkeypatch):
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
        monkeypatch.setenv("CAC_SITE_SHA256", file_sha256(file))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file, monkeypatch: file.write_text("{}", encoding="utf-8"),
            r"not the one that CAC_SITE_SHA256 states: its SHA-256 is",
        ),
        (lambda file, monkeypatch: file.unlink(), r"cannot be read \(No such file or directory\)\. Restore it"),
        (lambda file, monkeypatch: monkeypatch.delenv("CAC_SITE_SHA256"), r"CAC_SITE_SHA256 is not set\. Set it"),
        (change_content(version="0.1.0"), r"is for CAC 0\.1\.0; this is .* pin again"),
        (change_content(schema="other"), r"no site file of schema cac-site/1\. Write one with: cac models pin"),
        (change_content(models=5), r"has no valid models\. Write it again"),
    ],
)
def test_bad_files_are_refused(pin, monkeypatch, change, message):
    change(pin("--threshold-only"), monkeypatch)
    with pytest.raises(CTError, match=message):
        read_site()


def test_a_file_is_not_replaced(pin, capsys):
    file = pin("--threshold-only")
    before = file.read_bytes()
    assert cli.main(["models", "pin", str(file), "--name", "Other", "--threshold-only"]) == cli.BAD_USAGE
    assert "A site file is not replaced" in capsys.readouterr().err
    assert file.read_bytes() == before
