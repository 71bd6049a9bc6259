"""Insert plaque of known mass into a CT without calcium, and score it: insert_plaque.py CT DIR"""

import json
import sys
from pathlib import Path

import CACScoringLib as cac
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.phantom.insertion.background import prepare_background
from CACTrainingLib.phantom.insertion.inserted import InsertedSettings, write_insertions

background = prepare_background(cac.read_ct(sys.argv[1]), network=load_model(find_model("territories").path))
settings = InsertedSettings(artery="LAD", plaques=2, sigma_mm=0.6)  # without sigma_mm, the blur is measured at the skin
patient = write_insertions(background, Path(sys.argv[2]), 1, settings)

for folder in sorted(patient.glob("insertion_*")):
    truth = json.loads((folder / "truth.json").read_text())
    result = cac.score(cac.read_ct(folder / "ct.nii.gz"))
    print(f"{folder.name}: {truth['mass_mg']:.1f} mg inserted, Agatston {result.total.agatston:.0f}")
