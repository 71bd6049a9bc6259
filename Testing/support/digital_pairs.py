"""Two digital patients scanned twice at low resolution, for speed, and their results with handmade networks."""

from dataclasses import replace

from handmade_networks import AboveBlood, AllSlices, loaded
from in_this_process import InThisProcess

from CACScoringLib import run
from CACScoringLib.cohort import scoring
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.choice import Networks
from CACScoringLib.models.operating_points import OPERATING_POINTS, PUBLISHED
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import score_scan
from CACScoringLib.run import RunSettings, write_result
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.cohort.export import annotate, write_scan
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

CALCIFIED, CLEAN = 950341, 5
HEIGHTS_MM = (-90.0, 70.0)
SCANNER = Scanner(field_of_view_mm=400.0, matrix=128, slice_thickness_mm=5.0, slice_spacing_mm=5.0, noise_hu=8.0)
POSES = (ScanPose(inspiration=0.8, start_phase=0.3), ScanPose(inspiration=0.8, breathing_mm=3.0, start_phase=0.8))
POSITIVE_FROM = 0.6


def known_networks():
    """Networks whose map is everything above blood and its noise, in every slice; the heart is found from the lungs."""
    slices = loaded(AllSlices(), SliceClassifierConfig())
    point = {"threshold": POSITIVE_FROM, "sensitivity": 1.0, "false_positive_rate": 1.0}
    slices = replace(slices, card=replace(slices.card, validation={OPERATING_POINTS: {PUBLISHED: point}}))
    return Networks(slices, loaded(AboveBlood(), GeneratorConfig()))


def scored_in_this_process(monkeypatch):
    """Make studies score in this process with `known_networks`; return a list to which scored scans are added."""
    scored = []
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr("CACScoringLib.cohort.cohort.Workers", InThisProcess)
    monkeypatch.setattr(scoring, "load_models", lambda _: run.LoadedModels(known_networks()))
    monkeypatch.setattr(run, "score_scan", lambda scan, *more: scored.append(scan) or score_scan(scan, *more))
    return scored


def write_coarse(number, folder, scan_number=1, heights_mm=HEIGHTS_MM):
    """Write a coarse scan of a digital patient in the layout of a cohort; return the patient and the scan."""
    patient, pose = draw_patient(number), POSES[scan_number - 1]
    scan = scan_patient(patient, SCANNER, pose, scan_number, scan_grid(SCANNER, heights_mm))
    write_scan(patient, scan, annotate(scan, stream(number, 21, scan_number)), scan_number, folder)
    return patient, scan


def write_pairs(folder):
    """Write a cohort of CALCIFIED and CLEAN, scans 1 and 2 of each."""
    for number in (CALCIFIED, CLEAN):
        for scan_number in (1, 2):
            write_coarse(number, folder / f"patient_{number}" / f"scan_{scan_number}", scan_number)
    return folder


def write_results(scans, folder):
    """Score each scan and write its results; return the folders."""
    networks, folders = known_networks(), []
    for scan in scans:
        place = folder / scan.name.replace("/", "-")
        result = score_scan(read_ct(scan.ct), networks=networks)
        write_result(OutputFolder(place), result, RunSettings(), Progress())
        folders.append(place)
    return folders
