"""Proposals for scans that nobody has annotated yet: the heart, and which slices show calcium.

`scans/ID/proposal/heart.nii.gz` is the heart, uint8 0/1 on the scan's grid; `proposal.json` says where it comes from,
which slices it is in, and how probably each shows calcium. The folder appears whole. Annotations are never read.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.files import partial_folder

from .annotations import check_written
from .files import not_written, now

if TYPE_CHECKING:
    import SimpleITK as sitk

    from CACScoringLib.core.ct import CTScan
    from CACScoringLib.models.cards import LoadedModel, StoredModel

    from .project import Project

SCHEMA = "cac-proposal/1"
HEART_FILE, FACTS_FILE = "heart.nii.gz", "proposal.json"

NETWORKS = ("heart", "territories", "slices")
"""What a proposal's models are for. One for territories finds the heart, unless there is one for the heart alone."""


@dataclass(frozen=True)
class Proposal:
    """A proposal for a scan.

    heart_source: "lungs", or the name of the network that found the heart. heart_slices: those it is in, k from the
    feet. probabilities: that calcium shows, by k; empty without a classifier. models: names of the networks used.
    """

    heart_file: Path
    heart_source: str
    heart_slices: tuple[int, ...]
    probabilities: dict[int, float]
    models: tuple[str, ...]
    warnings: tuple[str, ...]


def propose(
    project: Project,
    scan_id: str,
    device: str = "auto",
    models: Sequence[Path] = (),
) -> Proposal:
    """Make a scan's proposal, in place of an earlier one.

    Without PyTorch the heart is the region between the lungs, and nothing is known of slices.
    device: "auto", "cpu" or "cuda". models: cards of models to use in place of the bundled ones of their kind.

    Raises CTError when the CT cannot be read or shows no heart, or a model cannot be used, and ProjectWriteError.
    """
    from CACScoringLib.io.reading import read_ct

    own = project.scan(scan_id)
    chosen, warnings = _chosen(models)
    scan = read_ct(own.ct, own.series)

    heart, source, more = _heart(scan, chosen, device)
    warnings += more

    probabilities = {}
    used = [source] if source != "lungs" else []
    if "slices" in chosen:
        probabilities, more = _probabilities(scan, heart, chosen["slices"], device)
        warnings += more
        used.append(chosen["slices"].card.name)

    facts = {
        "schema": SCHEMA,
        "made": now(),
        "heart_source": source,
        "heart_slices": _slices_of(heart),
        "probabilities": {str(k): probability for k, probability in probabilities.items()},
        "models": [{"name": m.card.name, "sha256": m.card.sha256} for m in chosen.values() if m.card.name in used],
        "doubts": warnings,
    }
    _write(_folder(project, scan_id), heart, facts)

    return _proposal(_folder(project, scan_id), facts)


def read_proposal(project: Project, scan_id: str) -> Proposal | None:
    """A scan's proposal; None when there is none, or it is damaged: then it is best made anew."""
    folder = _folder(project, scan_id)
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        proposal = _proposal(folder, facts)
        sound = all(0 <= p <= 1 for p in proposal.probabilities.values()) and facts["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return proposal if sound and proposal.heart_file.is_file() else None


def _folder(project: Project, scan_id: str) -> Path:
    return project.scan_folder(scan_id) / "proposal"


def _proposal(folder: Path, facts: dict) -> Proposal:
    return Proposal(
        heart_file=folder / HEART_FILE,
        heart_source=str(facts["heart_source"]),
        heart_slices=tuple(int(k) for k in facts["heart_slices"]),
        probabilities={int(k): float(probability) for k, probability in facts["probabilities"].items()},
        models=tuple(str(model["name"]) for model in facts["models"]),
        warnings=tuple(map(str, facts["doubts"])),
    )


def _chosen(cards: Sequence[Path]) -> tuple[dict[str, StoredModel], list[str]]:
    """The models asked for, by network, and the bundled ones for the rest; and doubts. Raises ModelError."""
    from CACScoringLib.models.cards import ModelError, StoredModel, list_models, read_card

    bundled = [model for model in list_models() if model.origin == "bundled"]
    models = {model.card.network: model for model in bundled if model.card.network in ("territories", "slices")}
    for path in map(Path, cards):
        card = read_card(path)
        if card.network not in NETWORKS:
            raise ModelError(
                f"{card.name} is a model for {card.network!r}; proposals use models for {', '.join(NETWORKS)}."
            )
        models[card.network] = StoredModel(card, path, "user")
    if "heart" in models:
        models.pop("territories", None)  # of them only the heart is proposed
    missing = [name for name in ("openvino", "safetensors") if importlib.util.find_spec(name) is None]
    if models and missing:
        message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
        if cards:
            raise ModelError(f"{message}. Install them, or give no model.")
        return {}, [f"{message}: the heart is the region between the lungs, and no slice is suggested."]
    return models, []


@lru_cache(maxsize=2)
def _loaded(path: Path, sha256: str, device: str) -> LoadedModel:
    # The weights' hash is part of the key, so that a model that was trained anew is loaded anew.
    from CACScoringLib.models.cards import load_model

    return load_model(path, device)


def _heart(scan: CTScan, models: dict[str, StoredModel], device: str) -> tuple[sitk.Image, str, list[str]]:
    """The heart as in scoring, where it comes from, and doubts about it. Raises CTError."""
    from CACScoringLib.anatomy.heart_search import find_heart

    finders = (models.get(network) for network in ("heart", "territories"))
    loaded = (model and _loaded(model.path, model.card.sha256, device) for model in finders)
    region = find_heart(scan, None, *loaded)
    return region.mask, region.source, [warning.message for warning in region.warnings]


def _probabilities(
    scan: CTScan, heart: sitk.Image, model: StoredModel, device: str
) -> tuple[dict[int, float], list[str]]:
    from CACScoringLib.calcium_map.decomposition import slice_probabilities

    found = slice_probabilities(scan, heart, _loaded(model.path, model.card.sha256, device))
    by_slice = {k: round(float(found.on_scan[k]), 4) for k in _slices_of(heart)}
    known = {k: probability for k, probability in by_slice.items() if math.isfinite(probability)}
    return known, [warning.message for warning in found.warnings]


def _slices_of(heart: sitk.Image) -> list[int]:
    import SimpleITK as sitk

    return [int(k) for k in sitk.GetArrayViewFromImage(heart).any((1, 2)).nonzero()[0]]


def _write(folder: Path, heart: sitk.Image, facts: dict) -> None:
    """Put a whole proposal in the place of an earlier one. Raises ProjectWriteError."""
    import SimpleITK as sitk

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as place:
            new = place / "new"
            new.mkdir()
            heart = sitk.Cast(heart, sitk.sitkUInt8)
            sitk.WriteImage(heart, str(new / HEART_FILE), useCompression=True)
            check_written(new / HEART_FILE, heart)
            (new / FACTS_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(place / "old")
            new.rename(folder)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else OSError(None, "the disk may be full")
        raise not_written(folder, reason) from error
