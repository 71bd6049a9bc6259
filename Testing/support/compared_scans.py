"""Compared scans without files, with known totals."""

from CACScoringLib.scoring.uncertainty import TOTAL
from CACTrainingLib.truth.records import ComparedScan, LesionRow, ScoringFacts

TOTALS = [0.0, 0.0, 0.0, 20.0, 50.0, 150.0, 300.0, 500.0, 900.0, 30.0] * 3


def compared_scan(n, in_map, model=None, **more):
    """Scan n of patient n with a reference and an automatic score of TOTALS, and a score of the map; more fields.

    in_map, and measured: Agatston score by method. arteries: That by method and artery. seconds, calibration, severe:
    Fields of `ScoringFacts`.
    """
    total = TOTALS[n % len(TOTALS)]
    measured = more.pop("measured", {"automatic": total, "map": in_map})
    arteries = more.pop("arteries", {})
    facts = {name: more.pop(name) for name in ("seconds", "calibration", "severe") if name in more}
    fields = {"name": f"s{n}", "patient": f"p{n}", "folder": f"s{n}", "total": total}
    fields["facts"] = ScoringFacts(**{"models": () if model is None else (model,), "seconds": 1.0} | facts)
    fields["values"] = {
        method: {part: (0.0, score) for part, score in {TOTAL: total, **arteries.get(method, {})}.items()}
        for method, total in measured.items()
    }
    return ComparedScan(**(fields | more))


def judged_rows(truths, method="automatic"):
    """Rows of lesions that a method lists, of an artery, with the reference's answers about them."""
    return tuple(LesionRow(method, n, False, "LAD", true, True, "LAD", 1.0, 1.0) for n, true in enumerate(truths))
