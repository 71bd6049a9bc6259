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
"""Of a chest CT with slices of 1 mm; taken for what is not fetched yet."""

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
    """How scans are shared out to workers.

    count: workers of this machine; None on a cluster, which has its own. needs: bytes of memory of each scan. memory:
    bytes of this machine that all workers may take together, in equal parts.
    """

    count: int | None
    needs: tuple[int, ...]
    memory: int

    def fits(self, index: int) -> bool:
        """Whether a scan can be scored beside others: one that needs more than a worker's part is scored alone."""
        return self.count is None or self.needs[index] <= self.memory // self.count


def scoring_bytes(voxels: int, asked: Asked) -> int:
    """Upper bound of the memory of a process that scores a scan of so many voxels."""
    fixed, per_voxel = _CLINICAL_BYTES, _CLINICAL_BYTES_PER_VOXEL
    if asked.networks:
        fixed, per_voxel = _NETWORK_BYTES, _NETWORK_BYTES_PER_VOXEL
    if asked.scene:
        fixed, per_voxel = fixed + _SCENE_BYTES, per_voxel + _SCENE_BYTES_PER_VOXEL
    return fixed + asked.estimates * _ESTIMATOR_BYTES + per_voxel * voxels


def plan(scans: Sequence[CohortScan], asked: Asked, workers: int | None = None, local: bool = True) -> Plan:
    """How to share out scans.

    workers: as many as the user wants on this machine. local: on this machine, where there are as many workers as end
    soonest: more of them have less memory each, and a scan that does not fit is scored alone when the others are done.
    """
    needs = tuple(scoring_bytes(voxels_of(scan), asked) for scan in scans)
    memory = available_memory_bytes()
    if not local:
        return Plan(None, needs, memory)
    if workers is None:
        workers = min(range(1, min(core_count(), len(scans)) + 1), key=lambda count: _duration(needs, memory, count))
    return Plan(min(workers, len(scans)), needs, memory)


def _duration(needs: Sequence[int], memory: int, count: int) -> float:
    """How long it takes, where a scan takes as long as it needs memory."""
    return sum(need / count if need <= memory // count else need for need in needs)


def voxels_of(scan: CohortScan) -> int:
    """Voxels of a scan, without reading or fetching them; 0 where a file cannot be read."""
    if scan.voxels is not None:
        return scan.voxels
    if scan.address:
        return LARGE_VOXELS
    try:
        if scan.ct.is_dir():
            return SLICE_PIXELS * sum(path.is_file() for path in scan.ct.rglob("*"))
        return math.prod(read_header(scan.ct).GetSize())
    except (CTError, OSError):
        return 0
