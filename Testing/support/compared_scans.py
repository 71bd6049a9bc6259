"""Compared scans without files, with known totals."""

from CACTrainingLib.validation.comparison import ComparedScan

TOTALS = [0.0, 0.0, 0.0, 20.0, 50.0, 150.0, 300.0, 500.0, 900.0, 30.0] * 3


def compared_scan(n, measured, model=None, total=None):
    """Scan n of patient n with a reference and an automatic score of TOTALS, and a score of the map."""
    return ComparedScan(
        name=f"s{n}",
        patient=f"p{n}",
        folder=f"s{n}",
        total=TOTALS[n] if total is None else total,
        vessels={},
        measured={"automatic": TOTALS[n], "map": measured},
        measured_vessels={"automatic": {}, "map": {}},
        lesions=None,
        wrong=None,
        counts={},
        seconds=1.0,
        models=() if model is None else (model,),
        warnings=(),
    )
