"""What age, sex and BMI of digital patients tell of their calcium, beside what they tell in people. Scans nothing.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_demographics.py [--patients 600]

A patient's score is the true mass times `AGATSTON_PER_MG`. The AUC is of a logistic regression on age, sex and BMI, ten
folds (fewer where fewer are positive), with a 95 % interval over patients; beside it the AUC of age and sex in people
drawn from the fitted laws of MESA (ages even from 45 to 84), which digital patients must not exceed. Published with a
radiograph: Hong 2025, 10.1016/j.jcct.2025.03.010 (AUC of the radiograph alone, and with age, sex and BMI; that of the
clinical factors alone is not in the abstract).

--scans N: instead, scans N calcified patients with a gated protocol, scores them as `phantom_literature.py` does, and
prints score over mass, from which `AGATSTON_PER_MG` comes.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from phantom_literature import HEART_MM, pair
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACTrainingLib.phantom.anatomy.body import FEMALE_SHARE, draw_body
from CACTrainingLib.phantom.anatomy.coronaries import draw_coronaries
from CACTrainingLib.phantom.anatomy.demographics import (
    AGATSTON_PER_MG,
    AGES_YEARS,
    AMOUNT,
    chest_girth_cm,
    demographics_of,
    share_above,
    share_with_calcium,
)
from CACTrainingLib.phantom.anatomy.patient import stream
from CACTrainingLib.phantom.anatomy.plaque import draw_plaques
from CACTrainingLib.phantom.cohort.cohort import CohortSettings

HONG = {0: (0.74, 0.77), 100: (0.75, 0.79), 400: (0.79, 0.82)}
"""Agatston score: AUC of the radiograph, and with age, sex and BMI."""
MESA = {
    "F": {50: (0, 0, 0, 8), 60: (0, 0, 16, 102), 70: (0, 13, 119, 391), 80: (20, 106, 370, 921)},
    "M": {50: (0, 0, 22, 110), 60: (0, 28, 155, 452), 70: (21, 145, 540, 1345), 80: (103, 385, 1200, 2933)},
}
"""25th, 50th, 75th and 90th percentile in White people by sex and age: McClelland 2006, table 2; (2nd)."""


def factors(number: int) -> tuple[float, bool, float, float, float]:
    """Age, whether a man, BMI, girth (cm) and true mass (mg) of a patient of the default cohort."""
    body = draw_body(stream(number, 1))
    plaques = draw_plaques(draw_coronaries(body, stream(number, 2)), body.sex, stream(number, 3))
    mass = sum(plaque.mass_mg for plaque in plaques)
    known = demographics_of(number, body, mass)
    return known.age_years, body.sex == "M", known.bmi_kg_m2, chest_girth_cm(body), mass


def auc(features: np.ndarray, positive: np.ndarray) -> tuple[float, float, float]:
    """Cross-validated AUC and its 95 % interval (bootstrap over patients). features: [n, p]."""
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(min(10, int(positive.sum())), shuffle=True, random_state=0)
    guess = cross_val_predict(model, features, positive, cv=folds, method="decision_function")
    generator = np.random.default_rng(0)
    drawn = []
    while len(drawn) < 500:
        own = generator.integers(0, len(positive), len(positive))
        if 0 < positive[own].sum() < len(own):
            drawn.append(roc_auc_score(positive[own], guess[own]))
    return roc_auc_score(positive, guess), *np.percentile(drawn, [2.5, 97.5])


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 2] (age, man) and scores of people drawn from the laws themselves."""
    g = np.random.default_rng(1)
    age, man = g.uniform(*AGES_YEARS, count), g.random(count) >= FEMALE_SHARE
    score = np.zeros(count)
    for sex, own in (("F", ~man), ("M", man)):
        at_60, per_decade, spread = AMOUNT[sex]
        amount = np.exp(g.normal(at_60 + per_decade * (age[own] - 60) / 10, spread))
        score[own] = amount * (g.random(own.sum()) < share_with_calcium(age[own], sex))
    return np.stack([age, man], axis=1), score


def report(count: int, workers: int) -> None:
    with ProcessPoolExecutor(workers) as pool:
        age, man, bmi, girth, mass = np.array(list(pool.map(factors, range(count), chunksize=25)), float).T
    score = AGATSTON_PER_MG * mass
    print(f"patients {count}; age {age.mean():.1f} ± {age.std():.1f} years")
    for name, own in (("women", man == 0), ("men", man == 1)):
        print(
            f"  {name} {own.sum()}: BMI {bmi[own].mean():.1f} ± {bmi[own].std():.1f} kg/m², with girth r "
            f"{np.corrcoef(girth[own], bmi[own])[0, 1]:.2f}; Spearman with calcium: age "
            f"{spearmanr(age[own], mass[own]).statistic:.2f}, BMI {spearmanr(bmi[own], mass[own]).statistic:.2f}"
        )
    print(
        "share with calcium, and share above 100, by age: digital (law of MESA); percentiles 50, 75, 90 of the score:"
    )
    for sex, name in (("F", "women"), ("M", "men")):
        for decade in range(45, 85, 10):
            own = (man == (sex == "M")) & (age >= decade) & (age < decade + 10)
            ages = np.linspace(decade, decade + 10, 101)
            present, above = share_with_calcium(ages, sex).mean(), share_above(100, ages, sex).mean()
            found = np.percentile(score[own], [50, 75, 90]).round(0).astype(int)
            print(
                f"  {name} {decade} to {decade + 9} (n {own.sum()}): {(score[own] > 0).mean():.2f} ({present:.2f}), "
                f"{(score[own] > 100).mean():.2f} ({above:.2f}); {found.tolist()} "
                f"(MESA, White {list(MESA[sex][decade + 5][1:])})"
            )
    features = np.stack([age, man, bmi], axis=1)
    person, theirs = people(20000)
    print("AUC of age, sex and BMI [95 %]; of age and sex in people of the laws; Hong: radiograph, with the factors")
    for threshold, (image, both) in HONG.items():
        positive, expected = (
            values > threshold if threshold == 0 else values >= threshold for values in (score, theirs)
        )
        value, low, high = auc(features, positive)
        law = roc_auc_score(expected, LogisticRegression().fit(person, expected).decision_function(person))
        print(
            f"  {'> 0' if threshold == 0 else f'>= {threshold}'} (n {positive.sum()}): {value:.2f} [{low:.2f}, "
            f"{high:.2f}]; {law:.2f}; {image:.2f}, {both:.2f}"
        )


def report_scores(count: int, workers: int) -> None:
    settings = CohortSettings("cardiac", prevalence=1.0, z_range_mm=HEART_MM)
    with ProcessPoolExecutor(workers) as pool:
        rows = list(pool.map(partial(pair, settings=settings), range(1000, 1000 + count)))
    mass = np.repeat([row["mass"] for row in rows], 2)
    score = np.array([scan["agatston"] for row in rows for scan in row["scans"]])
    print(
        f"scans {len(mass)}, of them scoring 0: {(score == 0).sum()}; Spearman {spearmanr(mass, score).statistic:.3f}"
    )
    print(f"score over mass, all together: {score.sum() / mass.sum():.2f} per mg")
    for low, high in ((0, 3), (3, 10), (10, 30), (30, 1000)):
        own = (mass >= low) & (mass < high)
        if not own.any():
            continue
        ratio = score[own] / mass[own]
        print(f"  {low} to {high} mg (n {own.sum()}): median {np.median(ratio):.2f}, mean {ratio.mean():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--scans", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.scans:
        report_scores(arguments.scans, arguments.workers)
    else:
        report(arguments.patients, arguments.workers)


if __name__ == "__main__":
    main()
