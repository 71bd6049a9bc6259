"""Insert plaque of known mass into a CT without calcium, and score it: insert_plaque.py CT DIR"""

import json
import sys
from pathlib import Path

import CACScoringLib as cac
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.phantom import InsertedSettings, prepare_background, write_insertions

background = prepare_background(cac.read_ct(sys.argv[1]), network=load_model(find_model("territories").path))
# A still heart: motion, thick slices and small plaques hide calcium from the threshold of 130 HU.
settings = InsertedSettings(artery="LAD", plaques=8, motion_scale=0, sigma_mm=0.6)  # in-plane blur of the scanner
patient = write_insertions(background, Path(sys.argv[2]), 2, settings)

print("scan             mg inserted  Agatston of the plaque  automatic Agatston  left out")
for folder in sorted(patient.glob("insertion_*")):
    mass_mg = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["mass_mg"]
    plaque = cac.agatston(folder / "ct.nii.gz", folder / "arteries.nii.gz").total.agatston
    result = cac.score(folder / "ct.nii.gz")
    print(f"{folder.name}  {mass_mg:11.1f}  {plaque:22.0f}  {result.total.agatston:18.0f}  {len(result.left_out):8}")
