"""How many keys and clicks a reader needs in the panel, from an automatic clinical score to a reviewed one.

Run from the repository's root:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/review_keys.py

The patient has ten lesions and five false candidates; two false ones are counted, and three lesions are left out
(`Testing/support/automatic_patient.py`). Every key goes through Qt to the list of the panel on the stand-in of the
desktop. Printed are the keys with every candidate looked at in turn, and with a click on each wrong one. Goal: 10.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import automatic_patient
import pytest
import slicer
from panel_driver import Driver

import desktop_host
from CACScoringLib.mrml import scene as mrml

GOAL = 10


def main() -> int:
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        automatic_patient.write(Path(folder) / "result")
        for every, name in ((True, "every candidate looked at"), (False, "the wrong ones clicked")):
            with pytest.MonkeyPatch.context() as monkeypatch:
                desktop_host.load_panel(monkeypatch, "CACScoring")
                mrml.add_volume(slicer.mrmlScene, automatic_patient.image(), "patient")
                driver = Driver()
                driver.state.method = type(driver.state.method).CLINICAL_RULE
                driver.score(folder=Path(folder) / "result")
                keys = automatic_patient.review_by_keys(driver, every)
                print(f"{name}: {len(keys)} keys and clicks: {' '.join(keys)}")
                print(f"  {driver.ui.totalLabel.text}")
                counts.append(len(keys))
                desktop_host.close_panel("CACScoring")
    reached = min(counts) <= GOAL
    print(f"goal of {GOAL} {'reached' if reached else 'missed'} by the quicker way")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
