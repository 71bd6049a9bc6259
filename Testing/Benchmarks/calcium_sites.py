"""To which artery, valve or vessel the calcium of digital patients is given, and whether what is counted is coronary.

Run from the repository's root, 10 to 20 s a scan; what was measured is kept in OUTPUT and not measured again:

    ./cac phantom --heart-shape anatomical --pairs 40 --first 80000 --protocol varied --prevalence 0.6 --output COHORT
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/calcium_sites.py COHORT ... --output OUTPUT.jsonl
        [--models HEART.json TERRITORIES.json SLICES.json MAP.json] [--by kernel]

The bundled models are used unless cards are named ("-" for none). Per voxel: mg of coronary calcium (10 mg/cm³ and
more, as the scan shows it without noise) by the site that `candidate_sites` gives the voxel. Deposits: mg of aortic,
valvular, mitral and other calcium at places that the automatic score counts as coronary, in the middle of diastole. A
lesion of the map is right if it holds coronary calcium; a true lesion is one that a reader who knows the place sees at
130 HU. --by prints all for the scans of each kernel, slice_mm, fov_mm (below 300 mm or not) or gated. Intervals:
bootstrap over patients, 95 %. `automatic_score.py` reads OUTPUT too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import MAIN_ARTERIES, SITES, Artery
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import bundled_folder, load_model
from CACScoringLib.pipeline import score_scan
from CACScoringLib.results import Networks, ScoreResult
from CACScoringLib.run import SCORING_NETWORKS
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import Score, score_arteries, score_lesions
from CACScoringLib.scoring.sites import candidate_sites
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.reference import patient_of, reference_scores
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.statistics.agreement import agreement
from CACTrainingLib.statistics.bootstrap import Bootstrap, estimate, ratio
from CACTrainingLib.statistics.regression import rank_correlation

CORONARY_MG_CM3 = 10.0
GROUPS: dict[str, Callable[[dict], object]] = {
    "kernel": lambda row: row["kernel"],
    "slice_mm": lambda row: row["slice_mm"],
    "fov_mm": lambda row: "below 300" if row["fov_mm"] < 300 else "300 and more",
    "gated": lambda row: row["gated"],
}
KEYS = [site.key if site in MAIN_ARTERIES else f"{site.key} ({site.value})" for site in SITES]


def measured(folder: Path, settings: dict, networks: Networks) -> dict:
    """What is measured of one scan."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    scan = read_ct(folder / "ct.nii.gz")
    calcium, arteries, regions = (
        sitk.GetArrayFromImage(read_mask(folder / f"{name}.nii.gz")) for name in ("calcium_map", "arteries", "regions")
    )
    result = score_scan(scan, networks=networks)
    coronary = calcium >= CORONARY_MG_CM3
    given = candidate_sites(result.heart, result.territories, coronary)
    voxel_ml = float(np.prod(scan.image.GetSpacing())) / 1000
    by_site = [
        [float(calcium[coronary & (arteries == a) & (given == site)].sum()) * voxel_ml for site in (0, *SITES)]
        for a in MAIN_ARTERIES
    ]
    seen = find_lesions(scan.image, regions, ScoringRules())
    return {
        "patient": truth["patient"],
        "scan": truth["scan"],
        "gated": truth["scanner"]["gate_phase"] is not None,
        "kvp": truth["scanner"]["kvp"],
        "noise_hu": None if result.blood is None else result.blood.noise_hu,
        "fov_mm": scan.image.GetSize()[0] * scan.image.GetSpacing()[0],
        "slice_mm": truth["scanner"]["slice_thickness_mm"],
        "kernel": truth["scanner"]["kernel"]["name"],
        "true_mg": truth["mass_mg"],
        "deposits": len(truth["distractors"]),
        "by_site": by_site,
        "reader": score_lesions(seen.lesions, scan.image.GetSpacing(), ScoringRules()).agatston,
        "reader_arteries": _by_artery(score_arteries(seen.lesions, scan.image.GetSpacing(), ScoringRules())),
        "reference": _reference(truth),
        "reader_lesions": len(seen.lesions),
        **_counted(result, coronary, seen.id_map),
        **_deposits(truth, settings, result),
    }


def _by_artery(scores: dict[Artery, Score]) -> dict[str, float]:
    return {artery.key: scores[artery].clinical_agatston for artery in MAIN_ARTERIES}


@cache
def _reference_of(text: str) -> dict[str, float] | None:
    patient = patient_of(json.loads(text))
    return patient and {artery: score.agatston for artery, score in reference_scores(patient).items()}


def _reference(truth: dict) -> dict[str, float] | None:
    """By artery, the score of a still scan without noise; remembered for the patient's second scan."""
    known = {key: truth[key] for key in ("patient", "sex", "lesions", "heart_shape", "body") if key in truth}
    return _reference_of(json.dumps(known))


def _counted(result: ScoreResult, coronary: np.ndarray, seen: np.ndarray) -> dict:
    """Of both methods: Agatston, pseudo-mass, lesions counted, those that are coronary, and true ones that are hit."""
    found: dict = {}
    for name, method in result.methods.items():
        ids = method.lesions.id_map
        right = set(np.unique(ids[coronary]).tolist()) - {0}
        found[name] = {
            "status": method.status,
            "agatston": method.total.clinical_agatston,
            "arteries": _by_artery(method.arteries),
            "intervals": {part: own.agatston for part, own in method.intervals.items()},
            "probabilities": method.category_probabilities,
            "mass": method.total.pseudo_mass_hu_mm3,
            "lesions": len(method.lesions.lesions),
            "right": len(right & {lesion.id for lesion in method.lesions.lesions}),
            "hit": len(set(np.unique(seen[ids > 0]).tolist()) - {0}),
        }
    return {"methods": found, "warnings": [warning.code for warning in result.warnings]}


def _deposits(truth: dict, settings: dict, result: ScoreResult) -> dict:
    """mg of calcium outside the coronary arteries in the scan, and of it what each method counts as coronary."""
    patient = draw_patient(truth["patient"], settings["sex"], settings["prevalence"], settings["heart_shape"])
    pose = ScanPose(**{k: tuple(v) if isinstance(v, list) else v for k, v in truth["pose"].items()})
    frame, image = posed_frame(patient.body, pose), result.scan.image
    total, counted = 0.0, dict.fromkeys(result.methods, 0.0)
    for deposit in patient.distractors:
        if deposit.metal:
            continue
        cloud = deposit.placed(patient.body, frame, patient.heart)
        places = cloud.positions_mm + pose.table_shift_mm
        index = np.rint((places - image.GetOrigin()) / image.GetSpacing()).astype(int)[:, ::-1]
        inside = ((index >= 0) & (index < image.GetSize()[::-1])).all(1)
        at, mass = tuple(index[inside].T), cloud.weights[inside]
        total += float(mass.sum())
        for name, method in result.methods.items():
            counted[name] += float(mass[method.lesions.id_map[at] > 0].sum())
    return {"deposit_mg": total, "deposit_counted_mg": counted}


def report(rows: Sequence[dict]) -> None:
    """Print the measures with their intervals."""
    boot = Bootstrap([row["patient"] for row in rows], np.random.default_rng(0))
    weights = boot.weights([row["patient"] for row in rows])
    patients = len({row["patient"] for row in rows})

    def line(title: str, values: np.ndarray) -> None:
        print(f"{title}: {estimate(values, len(rows), patients)}")

    def share(title: str, top: Callable[[dict], float], bottom: Callable[[dict], float]) -> None:
        line(title, ratio(weights, np.array([top(r) for r in rows], float), np.array([bottom(r) for r in rows], float)))

    print(f"{len(rows)} scans of {patients} patients")
    mass = np.sum([row["by_site"] for row in rows], axis=0)
    for n, artery in enumerate(MAIN_ARTERIES):
        elsewhere = {key: mg for key, mg in zip(["none", *KEYS], mass[n], strict=True) if key != artery.key and mg > 0}
        others = ", ".join(f"{key} {mg / mass[n].sum():.1%}" for key, mg in elsewhere.items())
        share(
            f"{artery.key} calcium in its artery",
            lambda r, n=n: r["by_site"][n][n + 1],
            lambda r, n=n: sum(r["by_site"][n]),
        )
        print(f"   {mass[n].sum():.0f} mg; else {others or 'nowhere'}")
    share(
        "all coronary calcium in its artery",
        lambda r: sum(r["by_site"][n][n + 1] for n in range(4)),
        lambda r: sum(map(sum, r["by_site"])),
    )
    for name in rows[0]["methods"]:
        print(f"-- {name}")
        share("non-coronary calcium counted", lambda r, n=name: r["deposit_counted_mg"][n], lambda r: r["deposit_mg"])
        hit, right = (np.array([r["methods"][name][key] for r in rows], float) for key in ("hit", "right"))
        true, counted = (
            np.array([r["reader_lesions"] for r in rows], float),
            np.array([r["methods"][name]["lesions"] for r in rows], float),
        )
        recall, precision = ratio(weights, hit, true), ratio(weights, right, counted)
        line("recall of lesions", recall)
        line("precision of lesions", precision)
        line("F1 of lesions", 2 * recall * precision / np.maximum(recall + precision, 1e-9))
        values = np.array([r["methods"][name]["agatston"] for r in rows], float)
        line(
            "rank correlation with true mass (Agatston)",
            rank_correlation(weights, values, np.array([r["true_mg"] for r in rows], float)),
        )
        masses = np.array([r["methods"][name]["mass"] for r in rows], float)
        line(
            "rank correlation with true mass (pseudo-mass)",
            rank_correlation(weights, masses, np.array([r["true_mg"] for r in rows], float)),
        )
        none = np.array([r["true_mg"] == 0 for r in rows])
        if none.any():
            some = weights[:, none]
            line(
                f"scans without coronary calcium above 0 (of {none.sum()})",
                ratio(some, (values[none] > 0).astype(float), np.ones(none.sum())),
            )
        _repeat(rows, name)
    reader, true = (np.array([r[key] for r in rows], float) for key in ("reader", "true_mg"))
    line("reader at 130 HU: rank correlation with true mass", rank_correlation(weights, reader, true))
    _repeat([{**r, "methods": {"reader": {"agatston": r["reader"]}}} for r in rows], "reader")


def _repeat(rows: Sequence[dict], name: str) -> None:
    """ICC of the two scans of a patient, where there are two."""
    by_patient: dict[int, list[float]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], []).append(row["methods"][name]["agatston"])
    pairs = np.array([pair for pair in by_patient.values() if len(pair) == 2])
    if len(pairs) > 5:
        boot = Bootstrap(range(len(pairs)), np.random.default_rng(0)).weights(range(len(pairs)))
        print(f"ICC of scan and rescan: {estimate(agreement(boot, pairs), len(pairs), len(pairs))}")


def main() -> None:
    """Measure what is missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--models", nargs=4, metavar=("HEART", "TERRITORIES", "SLICES", "MAP"))
    parser.add_argument("--by", choices=GROUPS)
    parser.add_argument("--most", type=int, help="scans of each cohort at most")
    options = parser.parse_args()
    names = options.models or [
        next(bundled_folder().glob(f"{n}*.json"), "-") for n in ("heart", "territories", "slices", "map")
    ]
    loaded = {kind: load_model(Path(p)) for kind, p in zip(SCORING_NETWORKS, names, strict=True) if str(p) != "-"}
    networks = Networks(loaded.get("heart"), loaded["slices"], loaded["decomposition"], loaded.get("territories"))
    rows = [json.loads(text) for text in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["cohort"], row["patient"], row["scan"]) for row in rows}
    for cohort in options.cohorts:
        settings = json.loads((cohort / "cohort.json").read_text(encoding="utf-8"))["settings"]
        for folder in sorted(cohort.glob("patient_*/scan_*"))[: options.most]:
            key = (cohort.name, int(folder.parent.name[8:]), int(folder.name[5:]))
            if key in done:
                continue
            try:
                row = {"cohort": cohort.name, **measured(folder, settings, networks)}
            except CTError as error:
                print(f"{folder}: {type(error).__name__}: {error}")
                continue
            rows.append(row)
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if not options.by:
        report(rows)
        return
    of = GROUPS[options.by]
    for group in sorted({of(row) for row in rows}):
        print(f"\n{options.by} {group}")
        report([row for row in rows if of(row) == group])


if __name__ == "__main__":
    main()
