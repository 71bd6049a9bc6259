"""Tables that users give, as text separated by commas."""

from __future__ import annotations

import json
from pathlib import Path

from . import changes, scored
from .target import Target, of

_change = of("table.csv", changes.either(changes.changed_table, changes.changed_table, changes.changed_bytes))


def _write(folder: Path, *lines: str) -> None:
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_masses(folder: Path) -> None:
    scored.write_ct(folder, "dicom")
    _write(folder, "kvp,mg_per_cm3_per_hu,manufacturer,uncertainty_percent", "100,0.65,,5", "120,0.74,Siemens,4")


def _weighed(folder: Path) -> list[str]:
    return scored.score(folder, "--settings", json.dumps({"scoring": {"mass_table": str(folder / "table.csv")}}))


def _write_percentiles(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    _write(
        folder,
        "sex,age_from,age_to,p25,p50,p75,p90",
        "F,45,84,0,1,40,200",
        "M,45,64,0,5,90,400",
        "M,65,84,9,90,400,900",
    )


def _ranked(folder: Path) -> list[str]:
    settings = {"percentile_table": str(folder / "table.csv"), "sex": "M", "age_years": 61}
    return scored.score(folder, "--settings", json.dumps({"scoring": settings}))


TARGETS = {
    "mass table": Target(_write_masses, _change, _weighed),
    "percentiles": Target(_write_percentiles, _change, _ranked),
}
