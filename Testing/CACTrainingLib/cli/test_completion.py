"""The completion of the command line, as bash runs it."""

import shutil
import subprocess

import pytest

from CACTrainingLib.cli import main as cli


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from contextlib import redirect_stdout

    path = tmp_path_factory.mktemp("completion") / "cac.bash"
    with path.open("w") as stream, redirect_stdout(stream):
        assert cli.main(["completion", "bash"]) == 0
    return path


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sco"], {"score"}),
        (["score", "--threshold"], {"--threshold-only"}),
        (["cohort", "--dry"], {"--dry-run"}),
        (["data", "imp"], {"import"}),
        (["score", "scan.n"], set()),
    ],
)
def test_commands_and_options_are_completed(script, words, completed):
    line = " ".join(f"'{word}'" for word in ("cac", *words))
    setup = f"source '{script}'; COMP_WORDS=({line}); COMP_CWORD={len(words)}"
    call = ["bash", "-c", f"{setup}; _cac; printf '%s\\n' \"${{COMPREPLY[@]}}\""]
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) == completed


@pytest.mark.long
def test_zsh_reads_it_as_bash_does(script, capsys):
    assert cli.main(["completion", "zsh"]) == 0
    first, rest = capsys.readouterr().out.split("\n", 1)
    assert "bashcompinit" in first
    assert rest == script.read_text()
