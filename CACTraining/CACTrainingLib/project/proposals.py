"""Propose the heart and the slices with visible calcium in scans that nobody has annotated yet.

`scans/ID/proposal/heart.nii.gz` is the heart, uint8 0/1 on the scan's grid; `proposal.json` holds its source, its
slices, and their probability of visible calcium. The folder is written atomically. Annotations are never read.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, ProjectWriteError
from CACScoringLib.core.files import partial_folder, read_json

from .annotation_files import check_written
from .files import disk_error, time_with_zone

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

    from CACScoringLib.core.ct import CTScan
    from CACScoringLib.core.progress import Progress
    from CACScoringLib.models.cards import LoadedModel, StoredModel

    from .files import ProjectScan
    from .project import Project

SCHEMA = "cac-proposal/1"
HEART_FILE, PROPOSAL_FILE = "heart.nii.gz", "proposal.json"

NETWORKS = ("territories", "slices")
"""Networks of a proposal."""


@dataclass(frozen=True)
class Proposal:
    """Proposal for a scan.

    Attributes:
        heart_file: Mask of the heart.
        heart_source: "lungs", or the name of the network that found the heart.
        heart_slices: Slices of the heart, k from the feet.
        probabilities: Probability of visible calcium by k; empty without a classifier.
        models: Names of the models.
        warnings: Messages about the heart and the models.
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
    """Make a scan's proposal, replacing an earlier one.

    Without the packages of the networks, the heart is the region between the lungs, and slices have no probabilities.

    Args:
        project: The project.
        scan_id: Id of the scan.
        device: "auto", "cpu" or "cuda".
        models: Cards of models that replace the bundled ones of their network.

    Raises:
        CTError: The CT cannot be read or shows no heart, or a model cannot be used.
        ProjectWriteError: The proposal cannot be written.
    """
    from CACScoringLib.io.reading import read_ct

    project_scan = project.scan(scan_id)
    selection, warnings = _select_models(models)
    scan = read_ct(project_scan.ct, project_scan.series)

    heart, source, doubts = _heart(scan, selection, device)
    warnings += doubts

    probabilities: dict[int, float] = {}
    model_names = [source] if source != "lungs" else []
    if "slices" in selection:
        probabilities, doubts = _probabilities(scan, heart, selection["slices"], device)
        warnings += doubts
        model_names.append(selection["slices"].card.name)

    cards = [model.card for model in selection.values()]
    facts = {
        "schema": SCHEMA,
        "made": time_with_zone(),
        "heart_source": source,
        "heart_slices": _slices_of(heart),
        "probabilities": {str(k): probability for k, probability in probabilities.items()},
        "models": [{"name": card.name, "sha256": card.sha256} for card in cards if card.name in model_names],
        "doubts": warnings,
    }
    _write(_folder(project, scan_id), scan.grid.image(heart), facts)

    return _proposal(_folder(project, scan_id), facts)


def propose_waiting(
    project: Project,
    scans: Sequence[ProjectScan],
    progress: Progress,
    device: str = "auto",
    models: Sequence[Path] = (),
    overwrite: bool = False,
) -> tuple[int, int]:
    """Make the proposals of scans within a step of the progress; scans without one are reported, and stop nothing.

    overwrite: True to replace existing proposals. Returns the numbers of proposals made and of failures. Raises
    ProjectWriteError.
    """
    waiting = [scan for scan in scans if overwrite or read_proposal(project, scan.id) is None]
    failed = 0
    for n, scan in enumerate(waiting, 1):
        try:
            proposal = propose(project, scan.id, device, models)
        except ProjectWriteError:
            raise
        except CTError as error:
            failed += 1
            progress.warning(ScanWarning("scan-failed", f"There is no proposal for {scan.name}. {error}"))
        else:
            for warning in proposal.warnings:
                progress.warning(ScanWarning("proposal-doubt", f"{scan.name}: {warning}"))
        progress.counted(n, len(waiting))
    return len(waiting) - failed, failed


def read_proposal(project: Project, scan_id: str) -> Proposal | None:
    """Read a scan's proposal; return None if there is none, or it is damaged and has to be made again."""
    folder = _folder(project, scan_id)
    try:
        facts = read_json(folder / PROPOSAL_FILE)
        proposal = _proposal(folder, facts)
        is_valid = all(0 <= p <= 1 for p in proposal.probabilities.values()) and facts["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return proposal if is_valid and proposal.heart_file.is_file() else None


def _folder(project: Project, scan_id: str) -> Path:
    return project.scan_folder(scan_id) / "proposal"


def _proposal(folder: Path, facts: dict[str, Any]) -> Proposal:
    return Proposal(
        heart_file=folder / HEART_FILE,
        heart_source=str(facts["heart_source"]),
        heart_slices=tuple(int(k) for k in facts["heart_slices"]),
        probabilities={int(k): float(probability) for k, probability in facts["probabilities"].items()},
        models=tuple(str(model["name"]) for model in facts["models"]),
        warnings=tuple(map(str, facts["doubts"])),
    )


def _select_models(cards: Sequence[Path]) -> tuple[dict[str, StoredModel], list[str]]:
    """Return the requested models, the bundled ones of other networks, and warnings. Raises ModelError."""
    from CACScoringLib.core.errors import ModelError
    from CACScoringLib.models.cards import StoredModel, list_models, read_card

    bundled = [model for model in list_models() if model.origin == "bundled"]
    models = {model.card.network: model for model in bundled if model.card.network in NETWORKS}
    for path in map(Path, cards):
        card = read_card(path)
        if card.network not in NETWORKS:
            raise ModelError(
                f"{card.name} is a model for {card.network!r}; proposals use models for {', '.join(NETWORKS)}."
            )
        models[card.network] = StoredModel(card, path, "user")
    missing = [name for name in ("openvino", "safetensors") if importlib.util.find_spec(name) is None]
    if models and missing:
        message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
        if cards:
            raise ModelError(f"{message}. Install them, or give no model.")
        return {}, [f"{message}: the heart is the region between the lungs, and no slice is suggested."]
    return models, []


@lru_cache(maxsize=2)
def _load_cached(path: Path, sha256: str, device: str) -> LoadedModel:
    # The weights' hash is part of the key, so that a model that was trained again is loaded again.
    from CACScoringLib.models.cards import load_model

    return load_model(path, device)


def _heart(scan: CTScan, models: dict[str, StoredModel], device: str) -> tuple[np.ndarray, str, list[str]]:
    """Find the heart as in scoring; return its mask, its source, and warnings. Raises CTError."""
    from CACScoringLib.anatomy.heart_search import find_heart

    model = models.get("territories")
    network = None if model is None else _load_cached(model.path, model.card.sha256, device)
    region = find_heart(scan, None, network)
    return region.mask, region.source, [warning.message for warning in region.warnings]


def _probabilities(
    scan: CTScan, heart: np.ndarray, model: StoredModel, device: str
) -> tuple[dict[int, float], list[str]]:
    from CACScoringLib.calcium_map.decomposition import slice_probabilities

    slice_calcium = slice_probabilities(scan, heart, _load_cached(model.path, model.card.sha256, device))
    by_slice = {k: round(float(slice_calcium.on_scan[k]), 4) for k in _slices_of(heart)}
    probabilities = {k: probability for k, probability in by_slice.items() if math.isfinite(probability)}
    return probabilities, [warning.message for warning in slice_calcium.warnings]


def _slices_of(heart: np.ndarray) -> list[int]:
    import numpy as np

    slices: list[int] = np.flatnonzero(heart.any((1, 2))).tolist()
    return slices


def _write(folder: Path, heart: sitk.Image, facts: dict[str, Any]) -> None:
    """Replace a proposal atomically. Raises ProjectWriteError."""
    import SimpleITK as sitk

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as place:
            new = place / "new"
            new.mkdir()
            heart = sitk.Cast(heart, sitk.sitkUInt8)
            sitk.WriteImage(heart, str(new / HEART_FILE), useCompression=True)
            check_written(new / HEART_FILE, heart)
            (new / PROPOSAL_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(place / "old")
            new.rename(folder)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else OSError(None, "the disk may be full")
        raise disk_error(folder, reason) from error
