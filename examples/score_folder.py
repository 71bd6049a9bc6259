"""Score every CT of a folder into a table: score_folder.py SCANS TABLE.csv [--threshold-only]"""

import argparse
from pathlib import Path

import pandas

import CACScoringLib as cac

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scans", type=Path, help="folder of DICOM folders and image files")
parser.add_argument("table", type=Path)
parser.add_argument("--threshold-only", action="store_true")
options = parser.parse_args()

rows = []
for path in sorted(options.scans.iterdir()):
    try:
        result = cac.score(cac.read_ct(path), threshold_only=options.threshold_only)
    except cac.CTError as error:
        rows.append({"scan": path.name, "refused": str(error)})
        continue
    arteries = {artery.key: score.agatston for artery, score in result.arteries.items()}
    severe = "; ".join(warning.message for warning in result.warnings if warning.severe)
    rows.append({"scan": path.name, "agatston": result.total.agatston, **arteries, "severe_warnings": severe})

table = pandas.DataFrame(rows)
table.to_csv(options.table, index=False)
print(table)
