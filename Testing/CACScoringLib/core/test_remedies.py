"""Remedies in the words of a panel; test_api.py has those of Python and test_main.py those of the command line."""

import os
import subprocess
import sys

from CACScoringLib.core.text import PANEL_WORKER


def test_a_panels_worker_names_fields():
    code = "from CACScoringLib.core.text import DEVICE; print(DEVICE)"
    environment = {**os.environ, **PANEL_WORKER}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout == "the device Processor\n"
