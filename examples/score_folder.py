"""Score every CT of a folder into a table: score_folder.py SCANS TABLE.csv [--threshold-only]"""

import argparse
import csv
from pathlib import Path

import CACScoringLib as cac

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scans", type=Path, help="folder of DICOM folders and image files")
parser.add_argument("table", type=Path)
parser.add_argument("--threshold-only", action="store_true")
options = parser.parse_args()

arteries = [artery.key for artery in cac.Artery]
with options.table.open("w", newline="", encoding="utf-8") as stream:
    table = csv.DictWriter(stream, ["scan", "agatston", *arteries, "severe_warnings", "refused"])
    table.writeheader()
    scans = sorted(options.scans.iterdir())
    for path, result in cac.score_many(scans, progress=True, threshold_only=options.threshold_only):
        if isinstance(result, cac.CTError):
            table.writerow({"scan": path.name, "refused": result})
            continue
        scores = {artery: result.arteries[artery].agatston for artery in arteries}
        severe = "; ".join(warning.message for warning in result.warnings if warning.severe)
        row = {"scan": path.name, "agatston": result.total.agatston, **scores, "severe_warnings": severe}
        table.writerow(row)
