"""Small scans under the names that the pages' commands use: a user's own files, before the first command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import small_ct
from dicom_files import write_series
from reference_files import write_coca_nongated

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.tables import write_table
from CACTrainingLib.cli.main import main
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, patient_folder, write_cohort
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations, write_mask
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.radiograph.prognosis import simulate_events

PATIENTS = {"vessels": 39, "aortic-valve": 12, "no-calcium": 5, "motion": 22}
"""Digital patients, as of `cac sample`: two with coronary calcium, one with that of a valve alone, one without."""


def write_patients(folder: Path) -> Path:
    """Write the patients, scanned twice, as `cac phantom` does."""
    write_cohort(len(PATIENTS), folder, CohortSettings(), workers=1)
    return folder


HEADER = {**small_ct.HEADER, "SliceThickness": 5, "KVP": 120}
"""Tags of series besides those of `write_series`."""


def write_dicom(scan: Path, folder: Path, patient: str = "P1") -> None:
    """Write a digital scan as a DICOM series. scan: Folder of the scan."""
    ct = sitk.ReadImage(str(scan / "ct.nii.gz"))
    hu = np.clip(sitk.GetArrayFromImage(ct), -1024, 3071)
    places = {"spacing_mm": ct.GetSpacing(), "origin_mm": ct.GetOrigin()}
    write_series(folder, hu, **places, tags={**HEADER, "PatientID": patient})


def scan_folder(folder: Path, name: str = "vessels", scan: int = 1) -> Path:
    return folder / patient_folder(PATIENTS[name]) / f"scan_{scan}"


class Maker:
    """Writes what the pages' words name into the present folder.

    patients: Folder of `write_patients`.
    """

    def __init__(self, patients: Path) -> None:
        self.patients = patients

    def write(self, *words: str) -> None:
        for word in words:
            getattr(self, word.partition(".")[0].replace("/", "_").lower())(Path(word))

    def ct(self, place: Path) -> None:
        write_dicom(scan_folder(self.patients), place)

    series = scan = earlier = ct

    def later(self, place: Path) -> None:
        write_dicom(scan_folder(self.patients, scan=2), place)

    def negative_ct(self, place: Path) -> None:
        write_dicom(scan_folder(self.patients, "no-calcium"), place)

    def folder(self, place: Path) -> None:
        for name in ("vessels", "no-calcium"):
            write_dicom(scan_folder(self.patients, name), place / name, name)

    def scans(self, place: Path) -> None:
        """Write a scan of each patient; the one without calcium has the ID PATIENT."""
        for n, name in enumerate(PATIENTS, 1):
            patient = "PATIENT" if name == "no-calcium" else f"10000{n}"
            write_dicom(scan_folder(self.patients, name), place / f"10000{n}", patient)

    def calibration(self, place: Path) -> None:
        for name in PATIENTS:
            scan = scan_folder(self.patients, name)
            shutil.copytree(scan, place / scan.relative_to(self.patients))

    reference = data_scans = calibration

    def project(self, place: Path) -> None:
        """Write a project whose scans have labelled slices, outlined hearts and painted lesions."""
        project = Project.create(place)
        for name in PATIENTS:
            project.add([NewScan(name, name, scan_folder(self.patients, name) / "ct.nii.gz")])
            annotate(project, project.scans[-1].id, scan_folder(self.patients, name))
        share_out(project)

    def coca(self, place: Path) -> None:
        scans = [scan_folder(self.patients, name, scan) for scan in (1, 2) for name in PATIENTS]
        totals = (0.0, 200.0) * 4
        scores = {f"{n}A": (0.0, total, 0.0, 0.0, total) for n, total in enumerate(totals)}
        write_coca_nongated(place, dict(enumerate(scans)), scores)

    def table(self, place: Path) -> None:
        rows = [(scan_folder(self.patients, name) / "ct.nii.gz", name) for name in PATIENTS]
        write_table(place, ("ct", "patient"), rows)

    def chests_table(self, place: Path) -> None:
        """Write a table of digital patients with their true masses."""
        truths = 2 * sorted(self.patients.rglob("truth.json"))
        rows = []
        for n, file in enumerate(truths):
            truth = json.loads(file.read_text(encoding="utf-8"))
            masses = [truth["mass_mg_by_artery"][artery] for artery in ARTERIES]
            rows.append((f"own-{n}", file.with_name("ct.nii.gz"), *masses, truth["age_years"], truth["sex"]))
        write_table(place, ("patient", "ct", *(f"mass_mg_{a}" for a in ARTERIES), "age_years", "sex"), rows)

    def results_nlst(self, place: Path) -> None:
        rows = [(f"10000{n}", 20 * n, 10 * n) for n in range(1, 4)]
        write_table(place, ("PID", "CAC_AI", "CAC_manual"), rows)

    def events(self, place: Path) -> None:
        generator = np.random.default_rng(0)
        category = generator.choice(4, 200)
        years, event = simulate_events(category, 0)
        scores = np.array([0, 30, 200, 900])
        rows = zip(range(200), years, event, scores[category], scores[generator.permutation(category)], strict=True)
        columns = ("patient", "time_years", "event", "agatston", "predicted_agatston")
        write_table(place, columns, [[*map(float, row)] for row in rows])

    def sources(self, place: Path) -> None:
        """Write the settings of the page, and the table whose name it shows."""
        place.write_text(json.dumps({"sources": {"test": "test", "noncoronary_controls": "others"}}), encoding="utf-8")
        self.chests_table(Path("table.csv"))

    def pa(self, place: Path) -> None:
        self.radiograph(place, "PA")

    def side(self, place: Path) -> None:
        self.radiograph(place, "lateral")

    def radiograph(self, place: Path, view: str) -> None:
        ct = scan_folder(self.patients) / "ct.nii.gz"
        assert main(["drr", str(ct), "--output", str(place), "--view", view, "--progress", "none"]) == 0


def share_out(project: Project) -> None:
    """Let training and validation have a patient with calcium each, and the test the others."""
    uses = ("training", "test", "test", "validation")
    project.set_use({scan.patient: use for scan, use in zip(project.scans, uses, strict=True)})


def annotate(project: Project, scan_id: str, folder: Path) -> None:
    """Annotate a scan of a project by its truth. folder: The digital scan's."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    labels = slice_annotations(project, scan_id, "AB")
    for entry in truth["slices"]:
        if entry["visible"] is not None:
            labels.set(entry["k"], SliceLabel.VISIBLE if entry["visible"] else SliceLabel.NOT_VISIBLE)
    for kind in ("heart", "regions"):
        write_mask(project, scan_id, "AB", kind, sitk.ReadImage(str(folder / f"{kind}.nii.gz")))
