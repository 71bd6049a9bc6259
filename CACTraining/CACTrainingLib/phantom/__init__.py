"""Digital patients whose coronary calcium is known, scanned by a simulated CT.

Coordinates are millimetres in LPS order: x to the patient's left, y to posterior, z to superior. Arrays are
[k, j, i]. Physics: calcium as point masses, the response of a moving point in filtered back-projection, the slice
profile, the noise spectrum and its dependence on the body's attenuation, the calcium's HU per tube voltage.
Shape: everything of the anatomy, the plaques' places and sizes, the trajectories, and the streaks of metal.

The names below are the interface of the library, which README.md describes; nothing else of it is imported elsewhere.
"""

from CACScoringLib.core.errors import InsertionError

from .anatomy.coronaries import draw_plaques
from .anatomy.heart import posed_frame
from .anatomy.patient import AGATSTON_PER_MG, STRATA, Patient, demographics, draw_patient, stratified_patients, stream
from .anatomy.points import PointCloud
from .cohort.cohort import (
    SAMPLES,
    CohortSettings,
    in_processes,
    make_sample,
    make_scan,
    patient_folder,
    patient_of,
    reference_scores,
    write_cohort,
    write_sample,
)
from .cohort.export import LABEL_HU, VISIBLE_CONTRAST_TO_NOISE, Labels, annotate, as_ct_scan
from .cohort.lesion_patients import DIFFICULTIES, Difficulty, draw_lesion_patient
from .cohort.lesion_scans import draw_lesion_scan
from .cohort.territory_volumes import POSSIBLE, TerritoryVolume, add_dense, dense_voxels, territory_volume
from .insertion.background import Background, prepare_background
from .insertion.inserted import InsertedScan, InsertedSettings, clean_scan, insert_lesions, write_insertions
from .insertion.insertion import measure_sigma_mm, read_path
from .scanner.motion import PROTOCOLS, ScanPose, draw_pair
from .scanner.response import Stamp, add_stamps
from .scanner.scanner import Scanner
from .scanner.simulation import HIGHEST_HU, DigitalScan, scan_grid, scan_patient
from .scanner.still import StillPatient, plaque_points, still_patient

__all__ = [
    "AGATSTON_PER_MG", "DIFFICULTIES", "HIGHEST_HU", "LABEL_HU", "POSSIBLE", "PROTOCOLS", "SAMPLES", "STRATA",
    "VISIBLE_CONTRAST_TO_NOISE", "Background", "CohortSettings", "Difficulty", "DigitalScan", "InsertedScan",
    "InsertedSettings", "InsertionError", "Labels", "Patient", "PointCloud", "ScanPose", "Scanner", "Stamp",
    "StillPatient", "TerritoryVolume", "add_dense", "add_stamps", "annotate", "as_ct_scan", "clean_scan",
    "demographics", "dense_voxels", "draw_lesion_patient", "draw_lesion_scan", "draw_pair", "draw_patient",
    "draw_plaques", "in_processes", "insert_lesions", "make_sample", "make_scan", "measure_sigma_mm", "patient_folder",
    "patient_of", "plaque_points", "posed_frame", "prepare_background", "read_path", "reference_scores", "scan_grid",
    "scan_patient", "still_patient", "stratified_patients", "stream", "territory_volume", "write_cohort",
    "write_insertions", "write_sample",
]  # fmt: skip
