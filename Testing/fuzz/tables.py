"""Tables that users give, as text separated by commas."""

from __future__ import annotations

from pathlib import Path

from made_cohorts import cohort

from . import changes, scored
from .target import Target, of

_change = of("table.csv", changes.either(changes.changed_table, changes.changed_table, changes.changed_bytes))


def _write(folder: Path, *lines: str) -> None:
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_masses(folder: Path) -> None:
    scored.write_ct(folder, "dicom")
    _write(folder, "kvp,mg_per_cm3_per_hu,manufacturer,uncertainty_percent", "100,0.65,,5", "120,0.74,Siemens,4")


def _weighed(folder: Path) -> list[str]:
    return scored.score(folder, "--mass-table", str(folder / "table.csv"))


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
    return scored.score(folder, "--percentiles", str(folder / "table.csv"), "--sex", "M", "--age", "61")


def _write_keys(folder: Path) -> None:
    (folder / "cohort").mkdir()
    cohort(folder / "cohort", 40.0, 0.0)
    columns = "folder,person_id,procedure_occurrence_id,image_occurrence_date,image_study_uid,image_series_uid"
    _write(folder, columns, "Doe_Jane_0,11,501,2023-02-28,st-0,se-0", "Doe_Jane_1,12,502,20240131,st-1,se-1")


def _keyed(folder: Path) -> list[str]:
    return ["cohort", "omop", str(folder / "cohort"), "--keys", str(folder / "table.csv")]


TARGETS = {
    "mass table": Target(_write_masses, _change, _weighed),
    "percentiles": Target(_write_percentiles, _change, _ranked),
    "keys of OMOP": Target(_write_keys, _change, _keyed),
}
