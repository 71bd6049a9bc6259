"""Remedies in the words of the command line, of Python and of a panel."""

import os
import subprocess
import sys

from CACScoringLib.core.remedies import DEVICE, PANEL_WORKER, words_of


def test_words_of_each_interface():
    assert str(DEVICE) == "--device cpu or auto"
    with words_of("argument"):
        assert str(DEVICE) == 'device="cpu"'
    assert str(DEVICE) == "--device cpu or auto"


def test_a_panels_worker_names_fields():
    code = "from CACScoringLib.core.remedies import DEVICE; print(DEVICE)"
    environment = {**os.environ, **PANEL_WORKER}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout == "the device Processor\n"
