"""Test the coverage of intervals by fitted errors, and regressions with bounds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from CACScoringLib.scoring.uncertainty import LEVEL, LesionAmounts
from CACTrainingLib.training.fits import SMALL_SCORES, fitted_errors


def patients(count, seed, spread=0.2):
    """Draw lesions with honest probabilities, and true scores that scatter around the sum of the true lesions."""
    g = np.random.default_rng(seed)
    lesions, truths = [], []
    for _ in range(count):
        number = g.integers(0, 6)
        amounts, p = np.exp(g.uniform(0, 6, number)), g.beta(0.4, 0.4, number)
        total = amounts[g.random(number) < p].sum()
        truths.append(np.expm1(max(0.0, np.log1p(total) + (total > 0) * spread * g.standard_normal())))
        lesions.append(LesionAmounts(amounts.tolist(), p.tolist()))
    return lesions, np.array(truths)


def covered(errors, lesions, truths):
    ends = [errors.interval(part) for part in lesions]
    return np.mean([low - 1e-9 <= truth <= high + 1e-9 for (low, high), truth in zip(ends, truths, strict=True)])


def test_nine_of_ten_intervals_hold_the_truth_of_other_patients():
    errors = fitted_errors(*patients(250, 1), (0.2, 0.5), (1.0, 1.5))
    assert covered(errors, *patients(250, 2)) == pytest.approx(LEVEL, abs=0.06)


def test_a_given_spread_gets_its_own_level():
    lesions, truths = patients(150, 4)
    narrow, wide = (fitted_errors(lesions, truths, (spread,), (1.0,)) for spread in (0.05, 0.8))
    assert (narrow.spread, wide.spread) == (0.05, 0.8)
    assert narrow.level > wide.level
    for errors in (narrow, wide):
        assert covered(errors, lesions, truths) >= LEVEL - 0.02


def test_probabilities_nearer_to_a_half_than_the_truth_are_sharpened():
    lesions, truths = patients(250, 6)
    blunt = [LesionAmounts(x.amounts, expit(logit(np.array(x.probabilities)) / 2).tolist()) for x in lesions]
    errors = fitted_errors(blunt, truths, (0.2,))
    assert errors.sharpness > fitted_errors(lesions, truths, (0.2,)).sharpness
    for x, honest in zip(blunt[:50], lesions, strict=False):
        sharpened, plain = replace(errors, sharpness=2.0), replace(errors, sharpness=1.0)
        assert sharpened.interval(x) == pytest.approx(plain.interval(honest))


def test_larger_errors_of_small_scores_are_found():
    g = np.random.default_rng(8)
    totals = np.exp(g.uniform(2, 8, 300))
    lesions = [LesionAmounts([total], [1.0]) for total in totals]
    errors = 0.1 * g.standard_normal(300)
    for small in SMALL_SCORES:
        truths = np.expm1(np.maximum(np.log1p(totals) + np.sqrt(1 + small / (1 + totals)) * errors, 0))
        assert fitted_errors(lesions, truths, (0.1,), (1.0,)).small == small


def test_scores_with_calcium_are_held_as_often_as_those_without():
    """Zeros, which are always held, hide in the level of all scores that many others are not."""
    lesions, truths = patients(250, 9, spread=0.6)
    empty = [LesionAmounts([], [])] * 750
    all_lesions, all_truths = [*lesions, *empty], np.concatenate([truths, np.zeros(750)])
    full = [part for part, has_calcium in zip(lesions, truths > 0, strict=True) if has_calcium]
    by_class, together = (
        fitted_errors(all_lesions, all_truths, (0.4,), (1.0,), (0.0,), is_by_class) for is_by_class in (True, False)
    )
    assert covered(by_class, full, truths[truths > 0]) == pytest.approx(LEVEL, abs=0.02)
    assert covered(together, full, truths[truths > 0]) < LEVEL - 0.1


def test_without_any_calcium_intervals_are_narrow():
    lesions = [LesionAmounts([], [])] * 30
    assert fitted_errors(lesions, np.zeros(30)).interval(lesions[0]) == (0.0, pytest.approx(0.0, abs=0.5))
