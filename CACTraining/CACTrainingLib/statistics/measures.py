"""Old names."""
# ruff: noqa: F401

from .agreement import LIMIT_FACTOR, agreement, agreement_estimate, kappa, kappa_estimate, relative_differences
from .agreement import absolute_difference_fit as absolute_difference_line
from .bootstrap import (
    LEAST_PATIENTS,
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Difference,
    Estimate,
    Found,
    estimate,
    mean,
    p_value,
    paired_difference,
    quantile,
    ratio,
)
from .regression import correlation, half_found, rank_correlation
from .regression import linear_fit as line
from .resamples import Resamples
from .roc import area_under_curve

Bootstrap.share = Bootstrap.proportion
Resamples.share = Resamples.proportion


def difference(first, second, n, patients):
    return paired_difference(Found(first, n, patients), Found(second, n, patients))
