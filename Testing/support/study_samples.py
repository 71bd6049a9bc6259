"""Handmade records of a study: pairs of scans of patients with known truth, without images."""

import numpy as np

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.scoring.uncertainty import TOTAL
from CACTrainingLib.truth.records import HEART_MEASURES, ComparedScan, LesionRow

REACH_MG = {"map": 1.0, "reader": 3.0, "automatic": 3.0, "noise_free": 0.0}
"""Approximate mass in mg from which a method finds a plaque."""


def scores_of(masses):
    """Make scores from masses in mg by artery."""
    arteries = {artery: (float(mass), 8.0 * float(mass)) for artery, mass in masses.items() if mass > 0}
    total = sum(masses.values())
    return {TOTAL: (float(total), 8.0 * float(total)), **arteries}


def record(patient="p0", number=1, visible=False, values=None, **more):
    """Make a record; values are, by method, scores or the mass in the LAD."""
    about = {"name": f"{patient}-{number}", "unit": "mg", "slice_threshold": 0.5}
    scores = {m: mass if isinstance(mass, dict) else scores_of({"LAD": mass}) for m, mass in (values or {}).items()}
    return ComparedScan(patient=patient, number=number, visible=visible, values=scores, **{**about, **more})


def map_lesions(*lesions):
    """Make the rows of the map's lesions of an artery and mass, of which it is known whether they hold calcium."""
    return tuple(
        LesionRow("map", n, False, artery, holds, True, artery, 8.0 * mass, mass)
        for n, (artery, mass, holds) in enumerate(lesions)
    )


def pairs(values, method="map"):
    """Make a record for each scan of each pair from masses, [n][2]."""
    return [
        record(f"p{n}", number, values={method: mass})
        for n, pair in enumerate(values)
        for number, mass in zip((1, 2), pair, strict=True)
    ]


def hearts(*agreement):
    """Make an agreement of hearts from HEART_MEASURES."""
    return dict(zip(HEART_MEASURES, map(float, agreement), strict=True))


def cohort(patients=60, seed=0):
    """Make records of both scans of digital patients with and without calcium, by methods of known quality.

    The map's error is 10 %, the reader's 50 % with missed small plaques; the automatic method and the count of slices
    also count non-coronary calcium. Every eleventh patient's second scan was refused.
    """
    g = np.random.default_rng(seed)
    records = []
    for n in range(patients):
        plaques = [
            (ARTERIES[g.choice(4, p=(0.1, 0.5, 0.15, 0.25))], float(g.lognormal(1.3, 1.2)))
            for _ in range(1 + g.poisson(1.5) if n % 2 else 0)
        ]
        distractors = ("aortic wall",) if n % 3 == 0 else ()
        for number in (1, 2):
            name = f"patient_{n:05d}"
            if n % 11 == 10 and number == 2:
                records.append(record(name, 2, None, refused="Slices are missing."))
                continue
            records.append(_scan(name, number, plaques, distractors, g))
    return records


def _scan(name, number, plaques, distractors, g):
    masses = {method: dict.fromkeys(ARTERIES, 0.0) for method in REACH_MG}
    wrong = 5.0 * bool(distractors) * g.random()
    for artery, mass in plaques:
        for method, reach in REACH_MG.items():
            spread = {"map": 0.1, "noise_free": 0.02}.get(method, 0.5)
            hit = mass > reach * g.lognormal(0, 0.2)
            masses[method][artery] += mass * float(g.lognormal(0, spread)) if hit else 0.0
    masses["automatic"]["LAD"] += wrong
    values = {method: scores_of(by_artery) for method, by_artery in masses.items()}
    true_mg = {a: sum(mass for artery, mass in plaques if artery == a) for a in ARTERIES}
    visible = tuple(a for a in ARTERIES if any(artery == a and mass > 1.5 for artery, mass in plaques))
    shows = [bool(visible) and k < 4 for k in range(20)]
    slices = tuple((show, float(g.beta(4, 2) if show else g.beta(2, 5))) for show in shows)
    count = float(sum(p >= 0.6 for _, p in slices))
    values["slices"] = {TOTAL: (count, count)}
    in_map = map_lesions(*((a, masses["map"][a], a in visible) for a in ARTERIES if masses["map"][a] > 0))
    return record(
        name,
        number,
        bool(visible),
        values,
        name=f"{name}-scan_{number}",
        visible_arteries=visible,
        truth_mg={TOTAL: sum(true_mg.values()), **true_mg},
        distractors=distractors,
        slices=slices,
        slice_threshold=0.6,
        lesions=in_map,
        heart=hearts(g.beta(60, 4), g.gamma(9, 1.5), g.gamma(9, 0.15)),
    )
