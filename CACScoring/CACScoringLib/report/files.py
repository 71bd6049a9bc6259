"""Results for programs: JSON, CSV, images; and a few lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ..calcium_map.decomposition import healthy_image
from ..core.labels import NonCoronary
from ..core.tables import table_text
from ..io.image_files import write_image
from ..record.columns import COLUMNS, COPIED, FEATURES_CSV, LESIONS_CSV, Cell, Row, lesion_rows, score_rows
from ..record.score_record import ScoreRecord
from ..record.scores import COUNTED, LEFT_OUT, OUTSIDE, STATUSES, MethodScore, NonCoronaryScore, Score
from ..results import CLINICAL_TITLES, METHOD_TITLES, ScoreResult
from ..scoring.doubt import doubtful_text
from ..scoring.labels import with_status
from .headline import category_text, features_sentence, interval_text, mass_text

_STEP_KEYS = {"whole-scan estimates": "second opinions"}
"""Keys of cac-score/1 that are older than the step's name."""


def write_json(
    path: Path,
    record: ScoreRecord,
    seconds: Mapping[str, float],
    identify: bool = False,
    comparison: dict[str, Any] | None = None,
) -> None:
    """Write `scores.json`. Within one schema keys may be added, but none removed or changed.

    Args:
        path: The file.
        record: Its content.
        seconds: By step.
        identify: Include the patient's name and ID, study date and UIDs, left out otherwise.
        comparison: With an earlier result, as `Comparison.as_json` gives it.
    """
    timed = replace(record, seconds={_STEP_KEYS.get(step, step): round(took, 3) for step, took in seconds.items()})
    content = timed.as_json(identify)
    if comparison is not None:
        content["comparison"] = comparison
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(folder: Path, record: ScoreRecord, identify: bool = False) -> None:
    """Write `lesions.csv` and `features.csv`. identify: As in `write_json`."""
    record = record.stated(identify)
    (folder / "lesions.csv").write_text(lesions_as_csv(record), encoding="utf-8")
    (folder / "features.csv").write_text(features_as_csv(record), encoding="utf-8")


def write_images(folder: Path, result: ScoreResult, healthy: bool = False) -> None:
    """Write the images of a result on the scan's grid, axes as in `CTScan`.

    `heart.nii.gz` (0, 1), `lesions.nii.gz` (`Site` labels, by the threshold); where they are known
    `pericardium.nii.gz` (0, 1) and `territories.nii.gz` (`TERRITORIES`); of a decomposition also `calcium_map.nii.gz`
    (HU above healthy tissue), `healthy.nii.gz` (HU; only where healthy is True) and `map_lesions.nii.gz` (`Artery`
    labels of the map's lesions); of a whole-scan estimate SALIENCY_FILE.
    """
    if result.decomposition is not None:
        # The largest image first, while the fewest others are in memory.
        calcium_map = result.decomposition.image()
        write_image(calcium_map, folder / "calcium_map.nii.gz")
        if healthy:
            write_image(healthy_image(result.scored_scan.image, calcium_map), folder / "healthy.nii.gz")
        del calcium_map
    write_image(result.scan.grid.image(result.region.mask), folder / "heart.nii.gz")
    for name, image in label_images(result):
        write_image(image, folder / f"{name}.nii.gz")
    for estimate in result.estimates:
        if estimate.saliency is not None:
            from ..whole_scan.estimates import SALIENCY_FILE

            write_image(estimate.saliency, folder / SALIENCY_FILE)


def label_images(result: ScoreResult) -> Iterator[tuple[str, sitk.Image]]:
    """Yield the label maps of a result but the heart's, each by the stem of its file; one at a time, as each may take
    hundreds of megabytes."""
    yield "lesions", with_status(site_labels(result), result.methods["threshold"].status)
    for name, mask in {"pericardium": result.region.pericardium, "territories": result.territory_labels}.items():
        if mask is not None:
            yield name, result.scan.grid.image(mask)
    if (in_map := result.methods.get("decomposition")) is not None:
        yield "map_lesions", in_map.lesion_set.label_image(result.scan.image)


def site_labels(result: ScoreResult, only_counted: bool = False) -> sitk.Image:
    """Return the clinical rule's lesions on the scan's grid as uint8 `Site` labels.

    Candidates that an automatic score leaves out are UNASSIGNED, or 0 with `only_counted`.
    """
    method = result.methods["threshold"]
    has_left_out = method.status == "automatic" and not only_counted
    listed = method.table.of_status(COUNTED, OUTSIDE, *((LEFT_OUT,) if has_left_out else ()))
    return listed.label_image(result.scan.image)


def result_as_text(result: ScoreResult) -> str:
    """Return a summary for a terminal; `Progress.warning` prints the warnings."""
    lines = []
    record = result.record
    if record.normalisation is not None and record.normalisation.changes:
        lines.append(f"Scan normalised: {record.normalisation.in_words}")
    for key, method in result.methods.items():
        lines += _method_lines(key, method)
    elsewhere = result.record.non_coronary
    if elsewhere is not None and record.outside:
        lines.append(f"Outside the coronary arteries: {'reviewed' if elsewhere.reviewed else 'unreviewed'}")
        scores = elsewhere.scores.items()
        lines += [_line(site.full_name, score, "Agatston") for site, score in scores if score.lesions]
    if record.epicardial_fat is not None:
        lines.append(record.epicardial_fat.in_words)
    if record.truth is not None:
        true = record.truth.mass_mg["total"]
        lines.append(f"True mass {true:.1f} mg, measured {mass_text(result.methods['threshold'], None)} mg")
    if record.categories is not None:
        c = record.categories
        state = "" if c.status == "reviewed" else f" ({STATUSES[c.status]})"
        lines.append(f"{c.in_words}{state}")
    if result.estimates:
        from ..whole_scan.estimates import estimates_as_text

        lines += estimates_as_text(result.estimates, result.methods)
    return "\n".join(lines)


def _method_lines(key: str, method: MethodScore) -> list[str]:
    lines = [f"{METHOD_TITLES[key]}: {_state(method)}"]
    agatston = CLINICAL_TITLES[key]
    rows = [(artery.key, score, artery) for artery, score in method.arteries.items() if score.lesions]
    for name, score, artery in [*rows, ("total", method.total, None)]:
        doubt = doubtful_text(method, artery)
        lines.append(_line(name, score, agatston) + (f"  {doubt}" if doubt else ""))
    if sentence := "; ".join(filter(None, (interval_text(method), category_text(method)))):
        lines.append(f"  {sentence}")
    if where := features_sentence(method):
        lines.append(f"  {where}")
    if method.left_out:
        count = len(method.left_out)
        lines.append(f"  {count} candidate{'' if count == 1 else 's'} left out as probably not coronary calcium")
    return lines


def _state(method: MethodScore) -> str:
    return STATUSES[method.status] + (", no coronary calcium" if method.no_calcium else "")


def _line(name: str, score: Score, agatston: str) -> str:
    plural = " " if score.lesions == 1 else "s"
    return f"  {name:<22}{score.lesions:>4} lesion{plural}  {agatston} {score.clinical_agatston:9.1f}"


def result_as_copied_text(methods: Mapping[str, MethodScore], elsewhere: NonCoronaryScore | None = None) -> str:
    """Return totals per method and artery as tab-separated lines for a spreadsheet.

    elsewhere: Calcium outside the coronary arteries, listed last.
    """
    titles = METHOD_TITLES | {"non_coronary": "Outside the coronary arteries"}
    states = {name: _state(method) for name, method in methods.items()}
    if elsewhere is not None:
        states["non_coronary"] = "reviewed" if elsewhere.reviewed else "not reviewed"
    sites = {site.key: site.full_name for site in NonCoronary}
    lines = []
    for row in score_rows(methods, elsewhere):
        artery = sites[row["artery"]] if row["method"] == "non_coronary" else row["artery"]
        named = {**row, "method": titles[row["method"]], "artery": artery}
        lines.append([*(_cell(named[name]) for name in COPIED), states[row["method"]]])
    return table_text((*(COLUMNS[name].titled for name in COPIED), "State"), lines, delimiter="\t")


def lesions_as_csv(record: ScoreRecord) -> str:
    """Return a table of all lesions as CSV, numbers with three decimals, positions in mm, RAS.

    One row per lesion and method, left-out candidates included, then non-coronary lesions.
    """
    return _csv(LESIONS_CSV, lesion_rows(record.methods, record.outside), record)


def features_as_csv(record: ScoreRecord) -> str:
    """Return the features as CSV: one row per lesion, then per artery, then of the patient (artery "total")."""
    rows: list[Row] = []
    for name, method in record.methods.items():
        rows += (*lesion_rows({name: method}), *score_rows({name: method}))
    return _csv(FEATURES_CSV, (row for row in rows if "median_hu" in row), record)


def _csv(columns: Sequence[str], rows: Iterable[Row], record: ScoreRecord) -> str:
    """Return a table whose rows end with the patient's pseudonym, the journal and, if known, the provenance."""
    end = record.patient_and_journal_cells | record.provenance_cells
    names = (*columns, *end)
    return table_text(names, [[_cell((row | end).get(name)) for name in names] for row in rows])


def _cell(value: Cell) -> str | int:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else value
