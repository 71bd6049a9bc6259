"""Regression test of scores: digital patients, real scans, reviews and cohorts against regression.json, key by key.

From the repository's root with PYTHONPATH=CACScoring:CACTraining, for all cases or those whose names contain NAME:

    python Testing/test_regression.py record DIR [NAME ...]     run them, keep all files and facts.json in DIR
    python Testing/test_regression.py compare DIR [OTHER]       list what differs from regression.json, or from OTHER
    python Testing/test_regression.py update DIR                take what DIR has into regression.json

A case is a list of command lines of `cac`; each writes into a folder named by its number. Exit codes and all numbers
and codes in the results are compared, but no texts, times, dates and paths. Recorded facts have more than
regression.json: components and evidence of lesions, their CSV, and the hashes of all label maps.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import math
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.acquisition import PSEUDONYM
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import FACTS_FILE
from CACScoringLib.core.grid import Grid
from CACScoringLib.record.findings import PATIENT_FEATURES
from CACScoringLib.record.provenance import COLUMNS
from CACScoringLib.record.score_record import read_result
from CACTrainingLib.cli.main import main
from support import dicom_files
from support.facts_read_back import differing_keys

ROOT = Path(__file__).parents[1]
DIGITAL = ROOT / "CACScoring" / "Resources" / "SampleData" / "CACDigitalPatient.nrrd"
DATA = Path(os.environ.get("CAC_REAL_CT_DIR", ROOT.parent / "shared" / "data"))
EXPECTED = Path(__file__).with_name("regression.json")

REAL = {
    "philips-soft": "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz",
    "philips-sharp": "lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz",
    "overlap": "acrin_flt_breast/013_petct_B10f_5mm.nii.gz",
    "heart-cut": "acrin_flt_breast/001_upper_heart_cut.nii.gz",
    "lidc-0002-thin": "lidc_idri/LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz",
    "lidc-0002": "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz",
    "lidc-0314": "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz",
    "lidc-0314-thin": "lidc_idri/LIDC-IDRI-0314_1mm_heart.nii.gz",
    "overlap-twofold": "tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz",
    "contrast-lidc": "lidc_idri/LIDC-IDRI-0001_contrast_1p4x1p4x2p5mm.nii.gz",
    "contrast-heart": "nsclc_radiogenomics/R01-001_contrast_1mm_heart.nii.gz",
    "contrast-lungs": "totalsegmentator/pulmonary_report_ct_cropped.nii.gz",
    "contrast-aorta": "totalsegmentator/aorta_report_ct_cropped.nii.gz",
    "abdomen": "totalsegmentator/abdomen_example_ct_sm.nii.gz",
    "insert": "qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz",
    "nrrd": "cip_copdgene/ct-64.nrrd",
    "labels-nifti": "4d_lung/113_coronary_labels.nii.gz",
    "labels-nrrd": "deepcac_masks/LIDC-IDRI-0187_heart1_body2_cac3.nrrd",
    "table": "lung_pet_ct_dx/metadata.csv",
}
"""Scans with default settings, and files that are refused."""

_113 = "{data}/4d_lung/113_HM10395_40pct_3mm.nii.gz"
_COPD = "{data}/cip_copdgene/ct-64Dicom"
CASES = {
    "digital-threshold": [
        "score {digital} --threshold-only",
        "label {out}/0/lesions.nii.gz",
        "score {digital} --threshold-only --lesions {out}/1/labels.nii.gz --reader Ann",
        "score {made}/nifti/two.nii.gz --threshold-only --heart {out}/0/heart.nii.gz --earlier {out}/2",
        "score {made}/nifti/gap.nii.gz --threshold-only",
        "review {out}/0 {digital}",
    ],
    "digital": ["score {digital}", "review {out}/0 {digital}"],
    "sample": ["score --sample"],
    "cohort-nifti-threshold": 2 * ["cohort {made}/nifti --threshold-only --output {out}/0"],
    "cohort-dicom": ['cohort {made}/dicom --settings \'{{"results": {{"healthy": false}}}}\''],
    "cohort-table": [
        "score {made}/nifti/one.nii.gz --threshold-only",
        "label {out}/0/lesions.nii.gz",
        "cohort {made}/table.csv --reader Ann",
    ],
    "113": [f"score {_113}", f"review {{out}}/0 {_113}"],
    "113-threshold": [
        f"score {_113} --threshold-only",
        f"score {_113} --threshold-only --lesions {{data}}/4d_lung/113_coronary_labels.nii.gz --reader Ann",
        f"score {_113} --threshold-only --lesions {{data}}/4d_lung/113_aortic_annulus.nii.gz --reader Ann",
    ],
    "dicom": [f"score {_COPD}", f"review {{out}}/0 {_COPD}"],
    "contrast-allowed-threshold": [f"score {{data}}/{REAL['contrast-heart']} --allow-unusual --threshold-only"],
    "insert-threshold": [
        f"body {{data}}/{REAL['insert']}",
        f"score {{data}}/{REAL['insert']} --threshold-only --heart {{out}}/0/body.nii.gz",
    ],
    **{name: [f"score {{data}}/{file}"] for name, file in REAL.items()},
}
QUICK = "digital-threshold"
DRAWN = "sample"
"""Case whose scan is drawn on this computer, with other roundings than on another."""
LONG = [pytest.param(name, marks=pytest.mark.long) for name in CASES if name != QUICK]

_TEXTS = {"message", "seconds", "reason", "ct", "series_sha256"}
_TEXTS |= {*PSEUDONYM, "provenance", "confirmations", "journal", "run", "looked_at", *COLUMNS}
_CLINICAL = re.compile(r"(/threshold|non_coronary)/.*(agatston|volume_mm3|hu_mm3|lesions|_hu|voxels)$")
_COUNTS = re.compile(r"/(voxels|lesions)(/\d+)?$")
_LEFT_OUT = {"components", "kinds", "candidate_evidence", "calibrated_on", "rules", "decomposition_settings"}
_LEFT_OUT |= {"slices_decomposed", "features"}


def run_case(name: str, folder: Path) -> dict[str, Any]:
    """Run a case's commands in a folder, and return the facts of their results."""
    folder.mkdir(parents=True, exist_ok=True)
    if any("{made}" in step for step in CASES[name]):
        make_scans(folder / "made")
    places = {"data": DATA, "digital": DIGITAL, "out": folder, "made": folder / "made"}
    codes = []
    log = (folder / "output.txt").open("w", encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        for number, step in enumerate(CASES[name]):
            words = [word.format(**places) for word in shlex.split(step)]
            codes.append(_do(words, folder / str(number)))
    return {"exit codes": codes, **facts(folder)}


def _do(words: list[str], output: Path) -> int | str | None:
    """Run a step; return its exit code, None if it is no command, or the name of an uncaught error."""
    options = ["--workers", "2"] if words[0] == "cohort" else ["--settings", '{"results": {"scene": false}}']
    try:
        if step := {"body": body, "label": label, "review": review}.get(words[0]):
            return step(*map(Path, words[1:]), output)
        return main([words[0], "--output", str(output), *words[1:], "--progress", "none", *options])
    except SystemExit as error:
        return error.code
    except Exception as error:
        traceback.print_exc()
        return type(error).__name__


def body(ct: Path, output: Path) -> None:
    """Write a mask of the body."""
    output.mkdir()
    sitk.WriteImage(sitk.ReadImage(str(ct)) > -300, str(output / "body.nii.gz"))


def label(lesions: Path, output: Path) -> None:
    """Write a result's lesions as a reader's labels, cycling through arteries, other sites and none."""
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.ReadImage(str(lesions)), True))
    sites = np.array([8, 9, 0, 1, 2, 3, 4, 5], np.uint8)
    labels = Grid.of(sitk.ReadImage(str(lesions))).image(sites[(components + 2) % 8] * (components > 0))
    output.mkdir()
    sitk.WriteImage(labels, str(output / "labels.nii.gz"))


def review(result: Path, ct: Path, output: Path) -> None:
    """Review a result as in the browser: reject the first lesion, assign the last to the LCX, accept all."""
    from CACTrainingLib.browser.open_reviews import OpenReview
    from CACTrainingLib.browser.project import cases_of

    case = cases_of(result, ct)[0]
    reading = OpenReview(case, "shared", case.scan())

    def act(action: str, **parts: object) -> None:
        request = {"action": action, "method": "threshold", "version": reading.version, "seconds": 0, **parts}
        with contextlib.suppress(CTError):  # where there are no lesions
            reading.act("Reader", reading.request_of(request))

    ids = [lesion.id for lesion in reading.review.lesions("threshold")]
    act("reject", lesions=ids[:1])
    act("assign", lesions=ids[-1:], site=3)
    for method in reading.review.methods:
        reading.look_at({method: [lesion.id for lesion in reading.review.lesions(method)]})
        act("accept", method=method)
    reading.export("Reader", dicom=False).rename(output)


def make_scans(folder: Path) -> None:
    """Write small scans made of a digital patient: images, one of them damaged, DICOM series, and a table."""
    shrunk = sitk.Cast(sitk.BinShrink(sitk.ReadImage(str(DIGITAL)), [2, 2, 1]), sitk.sitkInt16)
    hu = sitk.GetArrayFromImage(shrunk)
    brighter = np.where(hu > 100, hu * 13 // 10, hu).astype(np.int16)
    damaged = np.where(np.arange(len(hu))[:, None, None] == 20, np.nan, hu).astype(np.float32)
    (folder / "nifti").mkdir(parents=True)
    for name, values in {"one": hu, "two": brighter, "gap": damaged}.items():
        image = Grid.of(shrunk).image(values)
        sitk.WriteImage(image, str(folder / "nifti" / f"{name}.nii.gz"))
    for name, values in {"one": hu, "two": brighter, "short": hu[:4]}.items():
        dicom_files.write_series(folder / "dicom" / name, values, spacing_mm=shrunk.GetSpacing())
    rows = ["reviewed,nifti/one.nii.gz,../0/heart.nii.gz,../1/labels.nii.gz", "dicom,dicom/two,,", "lost,lost.nii,,"]
    (folder / "table.csv").write_text(
        "\n".join(["name,ct,heart,lesions", *rows, "coarse,nifti/two.nii.gz,,"]) + "\n", encoding="utf-8"
    )


def facts(folder: Path) -> dict[str, Any]:
    """Numbers and codes of the results below a folder, by file."""
    results: dict[str, Any] = {}
    for file in sorted(folder.glob("[0-9]*/**/*")):
        name = file.relative_to(folder).as_posix()
        if file.name == "scores.json":
            results[name] = _without_texts(json.loads(file.read_text(encoding="utf-8")))
        elif file.suffix == ".csv":
            with file.open(encoding="utf-8-sig", newline="") as lines:
                # Labels of scans follow from their folders, which differ.
                rows = [{k: _number(v) for k, v in row.items() if k != "scan"} for row in csv.DictReader(lines)]
            results[name] = _without_texts(rows)
        elif file.name.endswith(".nii.gz"):
            results[name] = _image_facts(sitk.ReadImage(str(file)))
    return results


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        parts = {k: _without_texts(v) for k, v in value.items() if k not in _TEXTS}
        if (parts.get("review") or {}).get("program") == "cac score --reader":
            del parts["review"]  # newer than the stored values
        if isinstance(parts.get("warnings"), list):
            parts["warnings"] = " ".join(warning["code"] for warning in parts["warnings"])
        return {k: v for k, v in parts.items() if v not in (None, "", {}, [])}
    return [_without_texts(item) for item in value] if isinstance(value, list) else value


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _image_facts(image: sitk.Image) -> dict[str, Any]:
    values = sitk.GetArrayFromImage(image)
    place = [round(n, 4) for n in (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())]
    digest = hashlib.sha256(values.tobytes() + json.dumps([values.shape, place]).encode()).hexdigest()[:16]
    labels = values.dtype == np.uint8
    counts = dict(zip(*(n.tolist() for n in np.unique(values, return_counts=True)), strict=True)) if labels else {}
    about = {"voxels": {str(n): count for n, count in counts.items()}} if labels else {"mean_hu": float(values.mean())}
    return {"sha256": digest, **about}


def compact(value: Any, key: str = "") -> Any:
    """Reduce facts to those in regression.json: without hashes of network outputs, evidence, settings, components,
    features, CSV of lesions, and lists of more than 40 lesions."""
    if isinstance(value, dict):
        return {name: compact(part, name) for name, part in value.items() if _is_kept(name, part, key)}
    if isinstance(value, list):
        return [compact(item, key) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _is_kept(name: str, part: Any, file: str) -> bool:
    no_lesions = isinstance(part, dict) and part.get("lesions") == 0 and name != "total"
    too_many = isinstance(part, list) and len(part) > 40 and isinstance(part[0], dict)
    of_networks = name == "sha256" and not file.endswith("/lesions.nii.gz")
    of_lesions = name.endswith(("/lesions.csv", "/features.csv")) or name.partition("_")[2] in PATIENT_FEATURES
    return not (no_lesions or too_many or of_networks or of_lesions or name in _LEFT_OUT)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every single fact with its key."""
    if not isinstance(value, dict | list):
        yield key, value
        return
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from flat(part, f"{key}/{name}" if key else str(name))


def differences(case: str, expected: dict, actual: dict) -> list[str]:
    """Line for each key that differs; a missing value is None."""
    before, now = dict(flat(expected)), dict(flat(actual))
    return [
        f"{case}/{key}: {before.get(key)!r} became {now.get(key)!r}"
        for key in before | now
        if not (case == DRAWN and key.endswith("/voxels_sha256"))
        and not _equal(before.get(key), now.get(key), *_tolerance(key, case.endswith("-threshold")))
    ]


def _tolerance(key: str, threshold: bool) -> tuple[float, float]:
    """Relative and absolute tolerance of a key; outputs of networks vary between processors."""
    if threshold or _CLINICAL.search(key):
        return 1e-6, 1e-6
    if "probabilit" in key:
        return 0.0, 0.02
    return (1e-2, 2.0) if _COUNTS.search(key) else (1e-3, 2e-3)


def _equal(first: Any, second: Any, relative: float, absolute: float) -> bool:
    numbers = all(isinstance(n, int | float) for n in (first, second))
    return math.isclose(first, second, rel_tol=relative, abs_tol=absolute) if numbers else first == second


@pytest.mark.parametrize("case", [QUICK, *LONG])
def test_results_are_those_recorded(case, tmp_path, real_ct):
    for name in re.findall(r"{data}/(\S+)", " ".join(CASES[case])):
        real_ct(name)
    lines = differences(case, _read(EXPECTED)[case], compact(run_case(case, tmp_path)))
    assert not lines, "\n".join(lines)
    automatic = [file.parent for file in tmp_path.glob(f"[0-9]*/**/{FACTS_FILE}") if is_automatic(file.parent)]
    assert {folder.name: keys for folder in automatic if (keys := differing_keys(folder))} == {}


def is_automatic(folder: Path) -> bool:
    return read_result(folder).status in ("automatic", "candidates")


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json" if folder.is_dir() else folder).read_text(encoding="utf-8"))


def record(folder: Path, names: list[str]) -> None:
    """Run cases; store their results and facts."""
    stored = _read(folder) if (folder / "facts.json").is_file() else {}
    for case in [case for case in CASES if not names or any(name in case for name in names)]:
        start = time.monotonic()
        stored[case] = run_case(case, folder / case)
        print(f"{case}: exit codes {stored[case]['exit codes']}, {time.monotonic() - start:.0f} s", flush=True)
        (folder / "facts.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def update(recorded: dict[str, Any]) -> None:
    """Store facts of cases in regression.json."""
    stored = (_read(EXPECTED) if EXPECTED.is_file() else {}) | compact(recorded)
    text = json.dumps(stored, separators=(",", ":"), sort_keys=True).replace('},"', '},\n"')
    EXPECTED.write_text(text + "\n", encoding="utf-8")


def compare(recorded: dict[str, Any], folder: Path | None) -> int:
    """Print the differences, and return their number."""
    expected, actual = (_read(folder), recorded) if folder else (_read(EXPECTED), compact(recorded))
    lines = [line for case in actual if case in expected for line in differences(case, expected[case], actual[case])]
    print(*lines, f"{len(lines)} differences in {len(actual)} cases", sep="\n")
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare", "update"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.what == "record":
        record(arguments.folder, arguments.names)
    elif arguments.what == "update":
        update(_read(arguments.folder))
    elif compare(_read(arguments.folder), Path(arguments.names[0]) if arguments.names else None):
        sys.exit(1)
