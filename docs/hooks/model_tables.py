"""Table of the models that come with CAC, from their cards: size, data, figures beside trivial answers, limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from result_tables import with_figures

from CACScoringLib.models.cards import StoredModel, list_models

LONGEST_DATA = 240
"""Characters of a card's statement of its data that the table shows."""

_EARLIER = re.compile(r"^(Begun from [^,:(]*, whose data were: )+")


@dataclass(frozen=True)
class Statement:
    """What the table states of the models of a network: NAME is a model's name, COLUMN one of COLUMNS; braces hold
    figures.

    Attributes:
        card: Figures of the card's validation.
        unseen: Figures on unseen digital patients, with intervals.
        trivial: The same of an answer that needs no model.
        unfit: What the models must not be used for.
    """

    card: str
    unseen: str
    trivial: str
    unfit: str


STATEMENTS = {
    "territories": Statement(
        "calcium assigned to its artery {models/NAME: validation / mass}; Dice of the heart "
        "{models/NAME: validation / heart}",
        "calcium assigned to its artery {results/territories.csv: all | proportion}",
        "all calcium assigned to the LAD: .53",
        "measuring the heart, or deciding about calcium near ostia and annuli",
    ),
    "lesions": Statement(
        "calcium of LM, LAD, LCX, RCA found {models/NAME: validation / LM found}, "
        "{models/NAME: validation / LAD found}, "
        "{models/NAME: validation / LCX found}, {models/NAME: validation / RCA found}; taken for it: root "
        "{models/NAME: validation / root as coronary}, annulus {models/NAME: validation / mitral as coronary}, noise "
        "{models/NAME: validation / noise as coronary}",
        "found {results/lesion-network.csv: LM found | COLUMN}, {results/lesion-network.csv: LAD found | COLUMN}, "
        "{results/lesion-network.csv: LCX found | COLUMN}, {results/lesion-network.csv: RCA found | COLUMN}; root "
        "{results/lesion-network.csv: root as coronary | COLUMN}, annulus "
        "{results/lesion-network.csv: mitral as coronary | COLUMN}, noise "
        "{results/lesion-network.csv: noise as coronary | COLUMN}",
        "130 HU in the heart takes everything for coronary calcium: 1 in all",
        "scans with stents, leads or contrast",
    ),
    "slices": Statement(
        "area {models/NAME: validation / auc}; at its published limit sensitivity "
        "{models/NAME: validation / operating_points / published / sensitivity}, false-positive rate "
        "{models/NAME: validation / operating_points / published / false_positive_rate}",
        "[results](../results.md#slices-that-show-calcium)",
        "by prevalence: area .5, sensitivity equal to the false-positive rate",
        "saying whether a person has calcium: at the limit of scoring most slices pass",
    ),
    "decomposition": Statement(
        "area for slices that show calcium {models/NAME: validation / without_rule / auc}; mass captured "
        "{models/NAME: validation / without_rule / captured}, precision "
        "{models/NAME: validation / without_rule / precision}",
        "κ of categories {results/pairs.csv: κ of categories with the ideal reader | COLUMN}; rank correlation with "
        "the true mass {results/pairs.csv: rank correlation with the true mass | COLUMN}; two scans, both positive "
        "{results/pairs.csv: relative difference of two scans, mass, positive in both | COLUMN}",
        "by prevalence: area .5. The 130 HU rule, automatic: κ "
        "{results/pairs.csv: κ of categories with the ideal reader | automatic}, "
        "{results/pairs.csv: rank correlation with the true mass | automatic}, "
        "{results/pairs.csv: relative difference of two scans, mass, positive in both | automatic}: **the map is not "
        "surely better**",
        "a score in place of the clinical one; stents and metal",
    ),
    "super_resolution": Statement(
        "error in the heart {models/NAME: validation / learned / rms_heart} HU; at calcium "
        "{models/NAME: validation / learned / rms_calcium} HU",
        "the six patients on the card are unseen",
        "interpolation: {models/NAME: validation / interpolated / rms_heart} HU; at calcium "
        "{models/NAME: validation / interpolated / rms_calcium} HU, **no gain**",
        "reading or scoring a CT",
    ),
    "vessels": Statement(
        "rank correlation of totals {models/NAME: validation / test / rank_correlation}",
        "the test patients on the card are unseen",
        "age and heart size: {models/NAME: validation / test / rank_correlation_age_and_heart_size}",
        "small calcium, of which it misses much, and an artery that its report calls undetermined",
    ),
}
"""Statements by network. Every network of a model that comes with CAC has one."""

COLUMNS = {
    "map-compact": "map",
    "map-labels": "map from slice labels",
    "lesions-compact": "unseen",
    "lesions-kinds": "lesions-kinds",
}
"""Columns of results/pairs.csv and results/lesion-network.csv by model."""

TITLES = ("model", "MB", "learned from", "on its card", "unseen digital patients", "trivial answer", "not for")


def models_as_markdown() -> str:
    """Return the table. Raises ValueError for a model without a statement, or a figure that there is not."""
    models = [model for model in list_models() if model.origin != "user"]
    lines = [TITLES, ["---"] * len(TITLES), *map(_row, models)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(model: StoredModel) -> tuple[str, ...]:
    card = model.card
    if card.network not in STATEMENTS:
        raise ValueError(f"{card.name} comes with CAC, and nothing states what it must not be used for.")
    statement = STATEMENTS[card.network]
    files = (model.path, model.path.with_suffix(".safetensors"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    name = card.name if model.origin == "bundled" else f"{card.name} (`--model`)"
    figures = (
        with_figures(text.replace("NAME", card.name).replace("COLUMN", COLUMNS.get(card.name, "")))
        for text in (statement.card, statement.unseen, statement.trivial)
    )
    return (name, f"{megabytes:.2g}", _data(card.training.data), *figures, statement.unfit)


def _data(text: str) -> str:
    """Return the beginning of a card's statement of its data, in one cell."""
    text = _EARLIER.sub("", " ".join(text.split())).replace("|", "\\|")
    if len(text) <= LONGEST_DATA:
        return text
    return f"{text[:LONGEST_DATA].rpartition(' ')[0]} …"
