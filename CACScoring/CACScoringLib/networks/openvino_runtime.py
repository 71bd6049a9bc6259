"""OpenVINO without its telemetry. Nothing else in the project imports OpenVINO.

OpenVINO's package brings `openvino_telemetry`, which on import writes a client number to the user's home and sends
usage statistics. A module that is None in `sys.modules` cannot be imported, and OpenVINO then takes its own stub.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
import openvino.opset13 as ops  # noqa: E402

__all__ = ["ops", "ov"]
