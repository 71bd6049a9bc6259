"""What calibrating on totals alone does: `cac validate --calibrate` on scans of a study, as if only totals were known.

    own_calibration.py PAIRS STUDY FIRST

PAIRS is a cohort of digital pairs, STUDY a folder of `cac evaluate` that scored them; patients are taken from number
FIRST on. The reference is the ideal reader's total of scan 1; candidates have the probability recorded with the
results, so that no scan is scored again. Printed are the tables of the page, before and after, cross-fitted; and again
for random parts of the patients.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import ModelCard, find_model
from CACScoringLib.scoring.evidence import FEATURES, INTERCEPT
from CACScoringLib.scoring.familiarity import recorded_facts
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.statistics.bootstrap import Bootstrap
from CACTrainingLib.validation.candidates import ScanCandidates, candidates_of
from CACTrainingLib.validation.comparison import ComparedScan
from CACTrainingLib.validation.recalibration import TooFewError, recalibrate
from CACTrainingLib.validation.recalibration_page import section


def main() -> None:
    pairs, study, first = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    folders = sorted(pairs.glob("patient_*/scan_1"))
    chosen = [folder for folder in folders if int(folder.parent.name.split("_")[1]) >= first]
    scans = [found for folder in chosen if (found := _scan(study, folder))]
    base = _by_probability(find_model("decomposition").card)
    _print(scans, base, f"{len(scans)} patients")
    generator = np.random.default_rng(0)
    for count in (20, 40, 80):
        if count < len(scans):
            chosen = sorted(generator.permutation(len(scans))[:count].tolist())
            _print([scans[n] for n in chosen], base, f"{count} of them, at random")


def _print(scans: list[ComparedScan], base: ModelCard, title: str) -> None:
    print(f"\n{title}")
    try:
        found = recalibrate(scans, base)
    except TooFewError as error:
        print(error)
        return
    part = section(found, Bootstrap([s.patient for s in scans], np.random.default_rng(0)), "ours", base.name)
    before = base.calibration["candidates"]["most_not_coronary"]
    print(f"limit {1 - before:.2f}, fitted {1 - found.fitted.evidence.most_not_coronary:.2f}")
    for table in part.tables[:2]:
        print(" | ".join(table.columns))
        for row in table.rows:
            print(" | ".join("–" if cell is None else str(cell) for cell in row))


def _by_probability(card: ModelCard) -> ModelCard:
    """A card by whose weights the only evidence is the probability itself."""
    candidates = card.calibration["candidates"]
    weights = dict.fromkeys(FEATURES, 0.0) | {FEATURES[0]: 1.0, INTERCEPT: 0.0}
    return replace(card, calibration={**card.calibration, "candidates": {**candidates, "weights": weights}})


def _reader_total(scan: Path) -> float:
    """By the clinical rule, within the regions of visible calcium."""
    ct, regions = read_ct(scan / "ct.nii.gz"), sitk.ReadImage(str(scan / "regions.nii.gz"))
    found = find_lesions(ct.image, sitk.GetArrayFromImage(regions), ScoringRules())
    return score_lesions(found.lesions, ct.image.GetSpacing(), ScoringRules()).agatston


def _scan(study: Path, scan: Path) -> ComparedScan | None:
    """A scan of a cohort, where it was scored automatically."""
    folder = study / "scans" / f"{scan.parent.name}-{scan.name}"
    if not (folder / "scores.json").is_file():
        return None
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    methods = content["methods"]
    if methods["threshold"]["status"] != "automatic":
        return None
    found = candidates_of(content)
    probability = np.clip([1 - lesion["not_coronary_probability"] for lesion in found], 1e-4, 1 - 1e-4)
    features = np.zeros((len(found), len(FEATURES)))
    features[:, 0] = np.log(probability / (1 - probability))
    arteries = {key: score["clinical_agatston"] for key, score in methods["decomposition"]["arteries"].items()}
    candidates = ScanCandidates(
        features=features.tolist(),
        agatston=[lesion["clinical_agatston"] for lesion in found],
        arteries=[lesion["artery"] for lesion in found],
        coronary=None,
        intervals={
            "automatic": methods["threshold"]["total"]["interval_90"],
            "map": methods["decomposition"]["total"]["interval_90"],
        },
        probabilities=(content["categories"] or {}).get("probabilities", {}),
        map_arteries=arteries,
        facts=recorded_facts(content, read_mask(folder / "heart.nii.gz")),
    )
    measured = {"automatic": methods["threshold"]["total"]["agatston"], "map": sum(arteries.values())}
    name = scan.parent.name
    rest = ({}, measured, {"automatic": {}, "map": {}}, None, None, {}, None, 0.0, (), (), candidates)
    return ComparedScan(name, name, name, _reader_total(scan), *rest)


if __name__ == "__main__":
    main()
