"""The ablation as sections of a study: every way to score (`ablation`) with its intervals, on the same scan pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.models.cards import StoredModel

from ..experiments.jobs import JobSettings
from ..report import figures as study_figures
from ..report.parts import Figure, Section, Table, heading, p_cell
from ..statistics.agreement import agreement, relative_differences
from ..statistics.bootstrap import Bootstrap, Estimate, Found, mean, paired_difference, ratio
from ..statistics.regression import rank_correlation
from .ablation import (
    ALL_LESIONS,
    CONFIGURATIONS,
    EVALUATED,
    WHOLE,
    AblationSettings,
    Configuration,
    Configurations,
    score_configurations,
    with_cards,
)
from .records import StudyRecord, Value, pairs_of
from .sample import PAPER
from .study_scan import StudyScan

SHIPPED = "as shipped"

STATISTICS = {
    "f1": "F1 of scans",
    "sensitivity": "Sensitivity of scans",
    "false_positives": "False-positive scans",
    "both": "Relative difference, positive in both",
    "either": "Relative difference, positive in either",
    "icc": "ICC of mass",
    "rank": "Rank correlation with true mass",
}
_SHORT = {"whole": "both", "no_classifier": "heart", "no_heart": "classifier", "neither": "neither"}
"""What is used of heart and slice classifier, for the figure's axis."""

_SHOWN_AGAINST_WHOLE = ("f1", "false_positives", "icc", "rank")
_PUBLISHED = {
    "all_whole": ("F1 0.80, false positives 0.14, difference 0.47 in both"),
    "all_no_classifier": "false positives 1.00",
    "all_neither": "false positives 0.57",
}
"""Section 5.4 and table 2, with the 119 patients of the first test set."""


def sections(
    scans: Sequence[StudyScan],
    records: Sequence[StudyRecord],
    folder: Path,
    settings: AblationSettings,
    models: Mapping[str, StoredModel],
    work: JobSettings,
    generator: np.random.Generator,
) -> tuple[Section, ...]:
    """Score the first pairs in every way, kept in `folder`, and compare.

    records: of the scans. models: by network. Raises StudyError for variants that cannot be used, ModelError.
    """
    variants = {name: with_cards(models, cards) for name, cards in settings.variants.items()}
    pairs = pairs_of(records)[: settings.pairs]
    known = {record.scan: record for pair in pairs for record in pair}
    chosen = [scan for scan in scans if scan.name in known]
    if not chosen:
        return (Section("ablation", _TITLE, ("There is no pair of which both scans were scored.",)),)
    configurations = score_configurations(chosen, models, CONFIGURATIONS, folder / "cells.jsonl", work)
    sample = _Sample(known, generator)
    found = [_configurations_section(sample, configurations, models)]
    if variants:
        by_name = {SHIPPED: configurations}
        for name, own in variants.items():
            by_name[name] = score_configurations(chosen, own, (WHOLE,), folder / "variants.jsonl", work)
        found.append(_variants_section(sample, by_name))
    return tuple(found)


_TITLE = "Ablation"


class _Sample:
    """The scans of the ablation, with resamples of their patients that all ways to score share."""

    def __init__(self, records: Mapping[str, StudyRecord], generator: np.random.Generator) -> None:
        self.records = records
        self._bootstrap = Bootstrap([record.patient for record in records.values()], generator)

    def statistics(self, values: Mapping[str, Value]) -> dict[str, Found]:
        """By STATISTICS. values: of the scans that could be scored so, by name."""
        own = [record for name, record in self.records.items() if name in values]
        mass = {record.scan: values[record.scan].mass for record in own}
        known = [record for record in own if record.visible is not None]
        positive = np.array([mass[record.scan] > 0 for record in known], bool)
        true = np.array([record.visible for record in known], bool)
        pairs = [pair for pair in pairs_of(self.records.values()) if all(r.scan in mass for r in pair)]
        both = np.array([[mass[record.scan] for record in pair] for pair in pairs]).reshape(-1, 2)
        truth = [record for record in own if record.truth is not None]
        masses = (np.array([mass[r.scan] for r in truth]), np.array([r.truth.mass_mg for r in truth]))
        hits = 2.0 * (positive & true)
        found = {
            "f1": self._of(known, lambda w: ratio(w, hits, positive.astype(float) + true)),
            "sensitivity": self._of(known, lambda w: ratio(w, positive & true, true), int(true.sum())),
            "false_positives": self._of(known, lambda w: ratio(w, positive & ~true, ~true), int((~true).sum())),
            "icc": self._of([pair[0] for pair in pairs], lambda w: agreement(w, both)),
            "rank": self._of(truth, lambda w: rank_correlation(w, *masses)),
        }
        for name, chosen in (("both", (both > 0).all(1)), ("either", (both > 0).any(1))):
            firsts = [pair[0] for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
            changes = relative_differences(both[chosen])
            found[name] = self._of(firsts, partial(mean, values=changes))
        return found

    def _of(self, records: Sequence[StudyRecord], statistic, n: int | None = None) -> Found:
        patients = [record.patient for record in records]
        if not records:
            return Found(np.full(2, np.nan), 0, 0)
        return Found(statistic(self._bootstrap.weights(patients)), len(records) if n is None else n, len(set(patients)))


def _configurations_section(
    sample: _Sample, configurations: Configurations, models: Mapping[str, StoredModel]
) -> Section:
    found = {
        configuration.key: sample.statistics(_of_configuration(configurations, configuration.key))
        for configuration in CONFIGURATIONS
    }
    titles = {configuration.key: _title_of(configuration, models) for configuration in CONFIGURATIONS}
    groups = (("Lesions classified, as shipped", EVALUATED), ("All lesions of the map, as published", ALL_LESIONS))
    columns = ("Method", *STATISTICS.values(), "Published")
    rows = []
    for title, own in groups:
        rows.append(heading(title, columns))
        for configuration in own:
            estimates = (found[configuration.key][name].estimate for name in STATISTICS)
            rows.append((f"  {titles[configuration.key]}", *estimates, _PUBLISHED.get(configuration.key)))
    lost = len(sample.records) - min(
        len(_of_configuration(configurations, configuration.key)) for configuration in CONFIGURATIONS
    )
    note = (
        "Without the heart mask, the whole space inside the chest wall takes its place. Each relative difference is "
        "over the pairs that are positive in that setting, so the rows are of different pairs. "
        f"Published: {PAPER}, section 5.4, 119 patients; there all lesions of the map count."
    )
    if lost:
        note += f" {lost} scans could not be scored in one of the settings, mostly because of too many lesions."
    tables = [Table("ablation", "Ablation of the method", columns, tuple(rows), note)]
    tables.append(_differences(found, titles))
    text = (
        f"{len(sample.records)} scans of {len(sample.records) // 2} patients were scored again, each without a part of "
        "the method. All settings share the same networks and resamples, so that differences are paired.",
    )
    return Section("ablation", _TITLE, text, tuple(tables), (_figure(found, titles),))


def _of_configuration(configurations: Configurations, key: str) -> dict[str, Value]:
    return {scan: values[key] for scan, values in configurations.items() if key in values}


def _title_of(configuration: Configuration, models: Mapping[str, StoredModel]) -> str:
    if configuration.other_rule:
        shipped_with = models["decomposition"].card.calibration.get("min_healthy_hu", -10.0) is not None
        return "without the −10 HU rule" if shipped_with else "with the −10 HU rule"
    if configuration.heart and configuration.classifier:
        return "heart and slice classifier"
    return {
        (True, False): "without the slice classifier",
        (False, True): "without the heart",
        (False, False): "without both",
    }[configuration.heart, configuration.classifier]


def _differences(found: Mapping[str, Mapping[str, Found]], titles: Mapping[str, str]) -> Table:
    columns = ["Setting"]
    for name in _SHOWN_AGAINST_WHOLE:
        columns += [STATISTICS[name], f"p, {STATISTICS[name]}"]
    rows = []
    for configuration in CONFIGURATIONS:
        if configuration == WHOLE:
            continue
        row: list = [titles[configuration.key] + ("" if configuration.evaluated else ", all lesions")]
        for name in _SHOWN_AGAINST_WHOLE:
            own, whole = found[configuration.key][name], found[WHOLE.key][name]
            if own.n != whole.n or not own.n:
                row += [None, None]
                continue
            change = paired_difference(own, whole)
            row += [change.estimate, p_cell(change.p)]
        rows.append(tuple(row))
    note = "Each setting minus the whole method, on the same scans, with paired bootstrap intervals."
    return Table("ablation_differences", "Difference from the whole method", tuple(columns), tuple(rows), note)


def _figure(found: Mapping[str, Mapping[str, Found]], titles: Mapping[str, str]) -> Figure:
    groups = tuple(_SHORT.get(configuration.key, titles[configuration.key]) for configuration in EVALUATED)
    series = {"Lesions classified": EVALUATED, "All lesions of the map": ALL_LESIONS}
    panels = [
        study_figures.Panel(
            STATISTICS[name],
            groups,
            {
                title: [found[configuration.key][name].estimate for configuration in configurations]
                for title, configurations in series.items()
            },
        )
        for name in ("f1", "false_positives", "both", "rank")
    ]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="")
    note = (
        "With heart and slice classifier, with one of them, with neither (as figure 6 of the paper); and with the rule."
    )
    return Figure("ablation_figure", "Parts of the method left out", draw, note, (7, 7))


def _variants_section(sample: _Sample, by_name: Mapping[str, Configurations]) -> Section:
    """A row per variant: the mean over its seeds, and the seeds below it."""
    pooled: dict[str, list[tuple[str, dict[str, Found]]]] = {}
    for name, configurations in by_name.items():
        variant, _, seed = name.partition("#")
        pooled.setdefault(variant, []).append((seed, sample.statistics(_of_configuration(configurations, WHOLE.key))))
    columns = ("Model", *STATISTICS.values())
    rows = []
    groups: dict[str, list[Estimate]] = {}
    for variant, seeds in pooled.items():
        means = [_mean([found[name] for _, found in seeds]).estimate for name in STATISTICS]
        groups[variant] = means
        rows.append((variant + (f", mean over {len(seeds)} seeds" if len(seeds) > 1 else ""), *means))
        if len(seeds) > 1:
            rows += [(f"  seed {seed}", *(found[name].estimate for name in STATISTICS)) for seed, found in seeds]
    shown = ("f1", "false_positives", "both", "rank")
    places = {name: n for n, name in enumerate(STATISTICS)}
    panels = [
        study_figures.Panel(
            STATISTICS[name], tuple(groups), {"Calcium map": [groups[variant][places[name]] for variant in groups]}
        )
        for name in shown
    ]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title="")
    note = "Each with the calibration on its cards. A mean over seeds is taken in every resample of the patients."
    tables = (Table("variants", "Other trained models", columns, tuple(rows), note),)
    figures = (Figure("variants_figure", "Other trained models", draw, "Bars are 95 % intervals.", (7, 7)),)
    return Section("variants", "Other ways to train", (), tables, figures)


def _mean(found: Sequence[Found]) -> Found:
    return Found(np.mean([one.values for one in found], axis=0), found[0].n, found[0].patients)
