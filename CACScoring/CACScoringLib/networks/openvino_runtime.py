"""OpenVINO without its telemetry. Nothing else in the project imports OpenVINO.

OpenVINO's package brings `openvino_telemetry`, which on import writes a client number to the user's home and sends
usage statistics. A module that is None in `sys.modules` cannot be imported, and OpenVINO then takes its own stub.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
import openvino.opset13 as ops  # noqa: E402

__all__ = ["convert", "ops", "ov"]


def convert(traced: torch.jit.ScriptModule) -> ov.Model:
    """Return the graph of a traced PyTorch module, its weights in constants that keep their names."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)
    model = frontend.load(decoder)
    return frontend.convert(model)
