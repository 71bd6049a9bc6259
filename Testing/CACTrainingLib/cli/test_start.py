"""Packages that the command line loads at start, and extras that it installs."""

import hashlib
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from CACScoringLib.cli.main import require
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.models import inference
from CACTrainingLib.cli import main as cli
from CACTrainingLib.cli import testing

ROOT = Path(__file__).parents[3]
NO_SCENE = ["--settings", '{"results": {"scene": false}}']
OF_PYTHON = {*sys.stdlib_module_names, "CACScoringLib", "CACTrainingLib"}


PROGRAM = """
import sys
before = set(sys.modules)
sys.path[:0] = {path}
from CACTrainingLib.cli.main import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == {code}
print("", *set(sys.modules) - before)
"""


def loaded_by(arguments: list[str]) -> set[str]:
    """Third-party packages loaded by a command in a fresh Python."""
    path = [str(ROOT / "CACScoring"), str(ROOT / "CACTraining")]
    program = PROGRAM.format(path=path, arguments=arguments, code=0 if {"--help", "--version"} & {*arguments} else 2)
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    return {name.partition(".")[0] for name in process.stdout.rpartition("\n ")[2].split()} - OF_PYTHON


@pytest.mark.parametrize("arguments", [["--help"], ["scor"]], ids=" ".join)
def test_help_and_a_mistyped_command_load_nothing(arguments):
    assert loaded_by(arguments) == set()


@pytest.mark.long
def test_options_of_a_command_load_no_network():
    assert {"SimpleITK", "numpy"} <= loaded_by(["drr", "--help"]), "what is loaded is seen"
    heavy = {"torch", "openvino", "monai", "sklearn", "matplotlib", "pandas", "vtk", "slicer", "numba"}
    for command in ("score", "compare", "cohort", "drr", "models", "sample", "phantom", "evaluate", "project"):
        assert not loaded_by([command, "--help"]) & heavy, command


class TestExtras:
    """Extras of a command."""

    @pytest.fixture
    def none_installed(self, monkeypatch):
        """Environment with the base only, other than the launcher's."""
        monkeypatch.setattr(metadata, "requires", lambda name: ["numpy", 'none-such>=1; extra == "studies"'])
        monkeypatch.setattr(sys, "prefix", str(Path("/usr")))

    @pytest.mark.parametrize(
        "arguments", [["train", "slices", "--output", "m.json"], ["evaluate", "prognosis", "--output", "out"]]
    )
    def test_a_command_names_the_package_to_install(self, arguments, none_installed, capsys):
        assert cli.main(arguments) == 2
        assert "This command needs slicer-cac[studies]. Install it with: pip install" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("origin", "command"),
        [
            ("", '"slicer-cac[studies]"'),
            ('{"url": "file:///a%20b/cac", "dir_info": {}}', '"/a b/cac[studies]"'),
            ('{"url": "file:///a/cac", "dir_info": {"editable": true}}', '--editable "/a/cac[studies]"'),
            ('{"url": "https://a/cac.whl", "archive_info": {}}', '"slicer-cac[studies] @ https://a/cac.whl"'),
            (
                '{"url": "https://a/cac.git", "vcs_info": {"vcs": "git", "commit_id": "1f"}}',
                '"slicer-cac[studies] @ git+https://a/cac.git@1f"',
            ),
        ],
    )
    def test_extras_come_from_where_the_package_came_from(self, none_installed, monkeypatch, origin, command):
        package = SimpleNamespace(read_text=lambda name: origin if name == "direct_url.json" else None)
        find = metadata.distribution

        def distribution(name):
            return package if name == "slicer-cac" else find(name)

        monkeypatch.setattr(metadata, "distribution", distribution)
        with pytest.raises(OutputError, match=re.escape(f"pip install {command}")):
            require("studies")

    def test_a_gpu_is_looked_for_before_pytorch_is_installed(self, none_installed, monkeypatch, capsys):
        def refuse():
            raise CTError("no driver")

        monkeypatch.setattr(inference, "check_gpu", refuse)
        assert cli.main(["evaluate", "heart", "--output", "out", "--device", "cuda"]) == 3
        assert "no driver" in capsys.readouterr().err

    def test_the_launcher_adds_them_in_its_own_environment(self, none_installed, monkeypatch):
        monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
        ran = []
        monkeypatch.setattr(subprocess, "run", lambda words: ran.append(words) or subprocess.CompletedProcess(words, 0))
        require("scene", "studies")
        assert ran == [[sys.executable, str(ROOT / "cac"), "--add-extras", "studies"]], "scene is not missing"

    def test_two_commands_that_need_some_add_them_one_after_the_other(self, tmp_path):
        for name in ("cac", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, tmp_path)
        python = tmp_path / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f"#!/bin/sh\necho begin >> {tmp_path}/pip\nsleep 0.5\necho end >> {tmp_path}/pip\n", encoding="utf-8"
        )
        python.chmod(0o755)
        required = b"".join((tmp_path / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
        (tmp_path / ".venv" / "installed.sha256").write_text(hashlib.sha256(required).hexdigest(), encoding="utf-8")
        command = [sys.executable, str(tmp_path / "cac"), "--add-extras", "review"]
        processes = [subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") for _ in range(2)]
        errors = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], errors
        assert (tmp_path / "pip").read_text(encoding="utf-8").split() == ["begin", "end", "begin", "end"]

    @pytest.mark.parametrize(
        ("arguments", "needed"),
        [
            (["score", "ct.nii.gz"], ()),
            (["score", "ct.nii.gz", "--scene"], ("scene",)),
            (["score", "ct.nii.gz", *NO_SCENE, "--scene"], ("scene",)),
            (["score", "--radiograph", "pa.png"], ("torch",)),
            (["cohort", "scans", "--output", "out", "--scene"], ("cohort", "scene")),
            (["evaluate", "radiomics", "--data", "t.csv", "--output", "out"], ("studies", "radiomics")),
            (["evaluate", "accuracy", "--data", "t.csv", "--output", "out"], ("statistics", "cohort")),
            (["evaluate", "detection", "--data", "t.csv", "--output", "out"], ("statistics", "cohort")),
            (["project", "agreement", "project"], ("statistics",)),
        ],
        ids=lambda value: " ".join(value),
    )
    def test_by_what_is_asked_for(self, arguments, needed):
        options = cli.make_parser().parse_args(arguments)
        assert options.extras(options) == needed

    def test_they_are_those_of_the_package(self):
        """An extra that is named wrongly would never be missed."""
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        named = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        assert sorted(testing.EXTRAS) == sorted(
            line.partition(" =")[0] for line in named.splitlines() if line.endswith("= [")
        )
