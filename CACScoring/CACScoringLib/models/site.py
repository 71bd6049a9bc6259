"""Site file: the models and scoring settings that a site has fixed for all its results.

Environment variable CAC_SITE names the file, CAC_SITE_SHA256 its SHA-256, which the site's signed protocol states too.
Every result then states name and hash, and nothing is scored with other models or settings. This proves under which
file a result was made to whom compares its hash with the protocol; it does not prove who wrote the file, and does not
hold against users who may change the environment or the program.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.decoding import restore
from ..core.errors import CTError, WrongValueError
from ..core.files import file_sha256, parse_json, read_file
from ..core.version import VERSION, commit
from ..networks.configs import RADIOGRAPH
from ..record.provenance import SiteRecord, plain_settings

SCHEMA = "cac-site/1"
FILE, HASH = "CAC_SITE", "CAC_SITE_SHA256"
"""Environment variables of the file and of its SHA-256."""

OF_SCANS = ("kvp", "sex", "age_years", "slices", "calibration")
"""Scoring settings that belong to a scan and are not pinned."""


@dataclass(frozen=True)
class PinnedModel:
    """A pinned model. card_sha256: Hash of its card, which holds that of the weights."""

    name: str
    card_sha256: str


@dataclass(frozen=True)
class SiteFile:
    """Content of a site file.

    Attributes:
        name: Name of the site or study.
        version: Version of CAC.
        models: Pinned models by network.
        scoring: Pinned settings of the section "scoring", except OF_SCANS.
        commit: Commit of CAC's source code; None to leave it open.
        schema: Schema of the file.
    """

    name: str
    version: str
    models: dict[str, PinnedModel]
    scoring: dict[str, object]
    commit: str | None = None
    schema: str = SCHEMA

    @property
    def models_of_cts(self) -> dict[str, PinnedModel]:
        """Pinned models that score a CT, by network."""
        return {network: model for network, model in self.models.items() if network != RADIOGRAPH}

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise CTError unless scoring settings, as of `asdict`, are those pinned."""
        actual = pinnable(settings)
        for name, pinned in self.scoring.items():
            if actual.get(name) != pinned:
                present = json.dumps(actual.get(name))
                raise CTError(
                    f"The site file of {self.name} pins the scoring setting {name} to {json.dumps(pinned)}; this run "
                    f"has {present}. Leave the setting out, or score outside the site's protocol by unsetting {FILE}."
                )

    def check_models(self, cards_sha256: Mapping[str, str]) -> None:
        """Raise CTError unless cards, by network, are the pinned ones and all of those that score a CT."""
        for network in {**self.models_of_cts, **cards_sha256}:
            self.check_model(network, cards_sha256.get(network))

    def check_model(self, network: str, card_sha256: str | None) -> None:
        """Raise CTError unless a network's card is the pinned one. card_sha256: None if the network is not used."""
        pinned = self.models.get(network)
        if pinned is None or pinned.card_sha256 != card_sha256:
            stated = "no model" if pinned is None else f"the model {pinned.name} with card {pinned.card_sha256}"
            present = "none" if card_sha256 is None else f"a card with SHA-256 {card_sha256}"
            raise CTError(
                f"The site file of {self.name} pins {stated} for {network}; this run would use {present}. Install the "
                "pinned model (cac models list shows what is used), leave --model, --whole-scan and --threshold-only "
                f"out, or unset {FILE}."
            )


def pinnable(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return the scoring settings that a site file pins. settings: `ScoreSettings` as of `asdict`."""
    return {name: value for name, value in plain_settings(settings).items() if name not in OF_SCANS}


def read_site() -> tuple[SiteFile, SiteRecord] | None:
    """Read the site file that the environment names.

    Returns:
        The file, and what results state of it; None without one.

    Raises:
        CTError: It is missing, changed, damaged or of another version.
    """
    path, expected = os.environ.get(FILE), os.environ.get(HASH)
    if not path:
        return None
    if not expected:
        message = f"{FILE} names {path}, but {HASH} is not set. Set it to the SHA-256 that your protocol states."
        raise CTError(message)
    try:
        data = read_file(Path(path))
    except OSError as error:
        raise CTError(
            f"The site file {path} cannot be read ({error.strerror}). Restore it, or unset {FILE}."
        ) from error
    if (sha256 := hashlib.sha256(data).hexdigest()) != expected.strip().lower():
        raise CTError(
            f"The site file {path} is not the one that {HASH} states: its SHA-256 is {sha256}, not {expected}. Restore "
            "the file, or ask who keeps the protocol for the hash."
        )
    try:
        content = parse_json(data)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise CTError(f"{path} is no site file of schema {SCHEMA}. Write one with: cac models pin.")
        site = restore(content, SiteFile)
    except (ValueError, WrongValueError) as error:
        raise CTError(f"The site file {path} has no valid {error}. Write it again with: cac models pin.") from error
    if site.version != VERSION:
        raise CTError(
            f"The site file {path} is for CAC {site.version}; this is {VERSION}. Install CAC {site.version}, or pin "
            "again with: cac models pin."
        )
    if site.commit not in (None, commit()):
        raise CTError(
            f"The site file {path} pins commit {site.commit} of CAC; this is {commit()}. Install the pinned commit, or "
            "pin again with: cac models pin --commit."
        )
    return site, SiteRecord(site.name, sha256)


def site_text(
    name: str, models: Mapping[str, tuple[str, Path]], settings: Mapping[str, Any], pinned_commit: str | None = None
) -> str:
    """Return the text of a site file.

    Args:
        name: Name of the site or study.
        models: Name and card of each model, by network.
        settings: Scoring settings as of `asdict`.
        pinned_commit: Commit of CAC's source code; None to leave it open.
    """
    pinned = {network: PinnedModel(model, file_sha256(card)) for network, (model, card) in models.items()}
    return json.dumps(asdict(SiteFile(name, VERSION, pinned, pinnable(settings), pinned_commit)), indent=1) + "\n"
