"""Compare two scans of one patient: compare_scans.py EARLIER LATER"""

import sys

import CACScoringLib as cac

earlier, later = map(cac.score, sys.argv[1:])
for method in cac.compare(earlier, later).methods:
    print(method.method, *method.bars, sep=": ")
    for change in method.changes:
        print(f"  {change.quantity}, {change.part}: {change.earlier:.1f} to {change.later:.1f}, {change.text}")
