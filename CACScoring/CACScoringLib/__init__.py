"""Coronary artery calcium scoring on CT: `import CACScoringLib as cac`.

Names are loaded on first use, because 3D Slicer imports parts of this package when it starts.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.version_info < (3, 10):  # noqa: UP036  # 3D Slicer 5.8 asks no requires-python
    raise ImportError("CAC needs Python 3.10 or newer; in 3D Slicer, version 5.12 or newer.")

from .core.version import VERSION

if TYPE_CHECKING:
    from .api import CalciumResult, agatston, compare, project_radiograph, score, score_many
    from .core.acquisition import Acquisition
    from .core.ct import CTScan, ScanWarning, scan_from_image
    from .core.errors import CTError, OutputError
    from .core.labels import Artery, NonCoronary
    from .drr.projection import Radiograph
    from .drr.settings import DrrSettings
    from .io.reading import read_ct, read_lesion_labels, read_mask
    from .record.rules import ScoringRules
    from .record.score_record import ScoreRecord, read_result
    from .record.scores import Lesion, MethodScore, Score
    from .scoring.comparison import Comparison

__version__ = VERSION

# fmt: off
__all__ = [
    "Acquisition", "Artery", "CTError", "CTScan", "CalciumResult", "Comparison", "DrrSettings", "Lesion",
    "MethodScore", "NonCoronary", "OutputError", "Radiograph", "ScanWarning", "Score", "ScoreRecord", "ScoringRules",
    "agatston", "compare", "project_radiograph", "read_ct", "read_lesion_labels", "read_mask", "read_result",
    "scan_from_image", "score", "score_many",
]
# fmt: on


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
