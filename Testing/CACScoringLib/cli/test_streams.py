"""Results are written and the run succeeds though nobody reads what it prints."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dicom_files import chest_hu, write_series

from CACScoringLib.cli.main import BAD_USAGE, DONE

CLOSED = "import os, sys; os.close(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
CODE = """
import sys
from CACScoringLib.cli.main import guard_streams
guard_streams()
with open(sys.argv[1], "w") as file:
    for n in range(2000):
        print("a line", file=sys.stderr)
        print("a line")
    sys.stderr.flush()
    sys.stdout.flush()
    file.write("whole")
"""


@pytest.mark.skipif(os.name == "nt", reason="closed handles cannot be passed on")
@pytest.mark.parametrize("number", [1, 2])
def test_streams_that_were_closed_before_the_start(tmp_path, number):
    command = [sys.executable, "-c", CLOSED, str(number), "-c", CODE, str(tmp_path / "result")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "result").read_text(encoding="utf-8") == "whole"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_pipes_whose_reader_has_gone(tmp_path, name):
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, name: writer}
    assert subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "result")], **streams).returncode == 0
    assert (tmp_path / "result").read_text(encoding="utf-8") == "whole"
    os.close(writer)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_on_standard_error_is_seen_at_once(unbuffered):
    code = "import sys; from CACScoringLib.cli.main import guard_streams; guard_streams()\n"
    code += "print('a word', file=sys.stderr); sys.stdin.readline()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    with process:
        timer = threading.Timer(30, process.kill)
        timer.start()
        assert process.stderr.readline().strip() == b"a word"
        timer.cancel()
        process.communicate(b"\n")
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_full_disk_is_an_error(tmp_path):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-c", CODE, str(tmp_path / "result")]
        assert subprocess.run(command, stdout=full, stderr=subprocess.DEVNULL).returncode != 0
    assert (tmp_path / "result").read_text(encoding="utf-8") == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.parametrize(("stream", "code"), [("stdout", BAD_USAGE), ("stderr", DONE)])
def test_a_command_whose_output_has_no_room_says_so_once(tmp_path, stream, code):
    """The results are complete; the printed text is lost."""
    write_series(tmp_path / "ct", chest_hu())
    table = tmp_path / "table.csv"
    command = [sys.executable, "-m", "CACScoringLib.cli", "info", str(tmp_path / "ct"), "--table", str(table)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(command, env=environment, encoding="utf-8", **streams)
    assert done.returncode == code
    assert table.read_text(encoding="utf-8").count("\n") == 2
    if stream == "stdout":
        assert done.stderr.count("Standard output") == 1
        assert "Exception" not in done.stderr
