"""Compared scans without files, with known totals."""

from CACTrainingLib.truth.comparison import ComparedScan

TOTALS = [0.0, 0.0, 0.0, 20.0, 50.0, 150.0, 300.0, 500.0, 900.0, 30.0] * 3


def compared_scan(n, in_map, model=None, **more):
    """Scan n of patient n with a reference and an automatic score of TOTALS, and a score of the map; more fields."""
    fields = {
        **{"name": f"s{n}", "patient": f"p{n}", "folder": f"s{n}", "total": TOTALS[n % len(TOTALS)], "vessels": {}},
        **{"measured": {"automatic": TOTALS[n % len(TOTALS)], "map": in_map}, "seconds": 1.0, "counts": {}},
        **{"measured_vessels": {"automatic": {}, "map": {}}, "lesions": None, "wrong": None, "warnings": ()},
        "models": () if model is None else (model,),
    }
    return ComparedScan(**(fields | more))
