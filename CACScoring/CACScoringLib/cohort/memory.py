"""How many scans of a cohort are scored at once: as many as cores and free memory have room for, scan by scan.

What scoring takes grows with the voxels of a scan, and little with what they show. Peaks in MB, measured by
`Testing/Benchmarks/scoring_memory.py` on two chest CTs that were resampled, each process scoring up to three scans:

    voxels         clinical rule   with a scene   networks   networks, whole-scan estimates and a scene
    256×256×64               498                       867                                          909
    512×512×64               547            835       1038                                         1300
    512×512×128              673                      1455                                         1708
    512×512×248              905           1302       2263                                         2575
    512×512×400             1135                      3218                                         3379
    768×768×300             1599                                                                   5025
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.ct import CTError
from ..core.processes import available_memory_bytes, core_count
from ..io.image_files import read_header
from .scans import CohortScan

SLICE_PIXELS = 512 * 512
"""Of a DICOM file that nobody has looked into."""

LARGE_VOXELS = 512 * 512 * 300
"""Of a chest CT with slices of 1 mm."""

IDLE_BYTES = 400_000_000
"""What a process takes that waits for a scan, its networks loaded."""

_CLINICAL_BYTES, _CLINICAL_BYTES_PER_VOXEL = 600_000_000, 7
_NETWORK_BYTES, _NETWORK_BYTES_PER_VOXEL = 900_000_000, 25
_SCENE_BYTES, _SCENE_BYTES_PER_VOXEL = 250_000_000, 2
_ESTIMATOR_BYTES = 100_000_000


@dataclass(frozen=True)
class Asked:
    """What is asked for of each scan: networks beside the clinical rule, whole-scan estimates, a scene."""

    networks: bool = True
    estimates: bool = False
    scene: bool = False


@dataclass(frozen=True)
class Plan:
    """count: processes. needs: of each scan, bytes beyond IDLE_BYTES. budget: bytes that scans at work may need
    together; None for no limit. See `workers.Workers`."""

    count: int
    needs: tuple[int, ...]
    budget: int | None


def scoring_bytes(voxels: int, asked: Asked) -> int:
    """Upper bound of the memory of a process that scores a scan of so many voxels."""
    fixed, per_voxel = _CLINICAL_BYTES, _CLINICAL_BYTES_PER_VOXEL
    if asked.networks:
        fixed, per_voxel = _NETWORK_BYTES, _NETWORK_BYTES_PER_VOXEL
    if asked.scene:
        fixed, per_voxel = fixed + _SCENE_BYTES, per_voxel + _SCENE_BYTES_PER_VOXEL
    return fixed + asked.estimates * _ESTIMATOR_BYTES + per_voxel * voxels


def plan(scans: Sequence[CohortScan], asked: Asked, workers: int | None = None) -> Plan:
    """How to share out scans. workers: processes that the user wants, whatever memory there is.

    Scans that need more than there is are scored alone.
    """
    needs = [scoring_bytes(voxels_of(scan), asked) for scan in scans]
    beyond = tuple(need - IDLE_BYTES for need in needs)
    if workers is not None:
        return Plan(min(workers, len(scans)), beyond, None)
    available = available_memory_bytes()
    count = max(1, min(core_count(), len(scans), available // min(needs)))
    return Plan(count, beyond, max(0, available - count * IDLE_BYTES))


def voxels_of(scan: CohortScan) -> int:
    """Voxels of a scan, without reading them; 0 where it cannot be told, as of a file that cannot be read."""
    if scan.voxels is not None:
        return scan.voxels
    try:
        if scan.ct.is_dir():
            return SLICE_PIXELS * sum(path.is_file() for path in scan.ct.rglob("*"))
        return math.prod(read_header(scan.ct).GetSize())
    except (CTError, OSError):
        return 0
