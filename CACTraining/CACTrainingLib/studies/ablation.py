"""What each part of the method is good for: the same scans scored without it, and by other trained models.

After van Velzen et al., section 5.4 and figure 6: with and without the heart's mask, with and without the classifier of
slices. Beside that the rule about the healthy image, and the evaluation of the map's lesions, which the paper lacks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import StoredModel, read_card
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import Networks

from ..experiments.errors import StudyError
from ..experiments.jobs import JobSettings, kept_jobs
from .records import Value, value_from_json
from .scoring import chest_room, forget, ready_networks, value_of
from .study_scan import StudyScan, hu_mm3_per_mass

VERSION = 2
"""Of the cells; what another one made is not used."""

PUBLISHED_MIN_HEALTHY_HU = -10.0


@dataclass(frozen=True)
class Configuration:
    """One way to score: with which parts of the method. other_rule: the rule about the healthy image switched, off
    where the models have it on. evaluated: lesions that are probably not coronary calcium are left out."""

    key: str
    heart: bool = True
    classifier: bool = True
    other_rule: bool = False
    evaluated: bool = True

    def settings(self, own: DecompositionSettings) -> DecompositionSettings:
        """own: those stored with the models."""
        if not self.classifier:
            own = replace(own, slice_threshold=0.0)
        if self.other_rule:
            own = replace(own, min_healthy_hu=PUBLISHED_MIN_HEALTHY_HU if own.min_healthy_hu is None else None)
        return own if self.evaluated else replace(own, most_not_coronary=1.0)


WHOLE = Configuration("whole")
EVALUATED = (
    WHOLE,
    Configuration("no_classifier", classifier=False),
    Configuration("no_heart", heart=False),
    Configuration("neither", heart=False, classifier=False),
    Configuration("other_rule", other_rule=True),
)
ALL_LESIONS = tuple(
    replace(configuration, key=f"all_{configuration.key}", evaluated=False) for configuration in EVALUATED
)
CONFIGURATIONS = (*EVALUATED, *ALL_LESIONS)

Configurations = dict[str, dict[str, Value]]
"""By scan and way to score, what the calcium map scores there."""


@dataclass(frozen=True)
class AblationSettings:
    """pairs: how many are scored again. variants: name to cards of trained models that replace those of their kind;
    names that differ only after a # ("alpha-10#1", "alpha-10#2") are seeds of one variant."""

    pairs: int = 30
    variants: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise StudyError(f"The ablation needs at least one pair; {self.pairs} were asked for.")


def score_configurations(
    scans: Sequence[StudyScan],
    models: Mapping[str, StoredModel],
    configurations: Sequence[Configuration],
    file: Path,
    work: JobSettings,
) -> Configurations:
    """Score scans in every way. What cannot be scored is left out. models: by network. file: keeps what is done."""
    stored = [asdict(configuration) for configuration in configurations]
    made_with = [VERSION, [{"judged" if k == "evaluated" else k: v for k, v in own.items()} for own in stored]]
    made_with += [[network, m.card.sha256, m.card.calibration] for network, m in sorted(models.items())]
    keys = {}
    for scan in scans:
        text = json.dumps([made_with, str(scan.ct), scan.ct.stat().st_mtime_ns], sort_keys=True)
        keys[f"{scan.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"] = scan
    done, _ = kept_jobs(keys, file, partial(_scorer, dict(models), tuple(configurations), work.device), work)
    return {keys[key].name: {name: value_from_json(v) for name, v in found.items()} for key, found in done.items()}


def with_cards(models: Mapping[str, StoredModel], cards: Sequence[Path]) -> dict[str, StoredModel]:
    """The models, some replaced by those of these cards. Raises ModelError, and StudyError for two of one kind."""
    own = [StoredModel(read_card(path), path, "user") for path in cards]
    if len({model.card.network for model in own}) < len(own):
        raise StudyError(f"Two cards of one variant are for the same network: {', '.join(map(str, cards))}.")
    return {**models, **{model.card.network: model for model in own}}


def _scorer(
    models: dict[str, StoredModel], configurations: tuple[Configuration, ...], device: str
) -> Callable[[StudyScan], dict]:
    return partial(_scored, ready_networks(models, device), configurations)


def _scored(networks: Networks, configurations: tuple[Configuration, ...], scan: StudyScan) -> dict:
    ct = read_ct(scan.ct, scan.series)
    per_mass = hu_mm3_per_mass(scan)
    forget(networks)
    whole = score_scan(ct, networks=networks)
    own = whole.decomposition.settings
    room = None if all(configuration.heart for configuration in configurations) else chest_room(ct)
    found = {}
    for configuration in configurations:
        result = whole
        if configuration != WHOLE:
            # In the room of the whole chest bones would be taken for enhanced blood.
            own_settings = configuration.settings(own)
            no_heart = not configuration.heart  # its room is no heart that contrast or orientation can be seen in
            changed = ScoreSettings(decomposition=own_settings, allow_contrast=no_heart, allow_reversed=no_heart)
            try:
                result = score_scan(ct, changed, None if configuration.heart else room, networks=networks)
            except CTError:  # so many lesions that it is noise; the scan's other cells stand
                continue
        found[configuration.key] = asdict(value_of(result.methods["decomposition"], per_mass))
    return found
