"""Learning curves, written during a training: `metrics.jsonl`, TensorBoard's events, and sample pictures.

Lines of `metrics.jsonl` are JSON objects with `event`, `step` and `seconds`:
- "training": losses, as means since the previous line;
- "validation": metrics, `best` (true if they are the best so far), `warnings` (present messages by code), and
  `ended` (why the training ended early, or "").
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from CACScoringLib.core.files import write_bytes_atomically, write_text_atomically

METRICS, SAMPLES = "metrics.jsonl", "samples"


class Curves:
    """Writer of a training's curves. A training that resumes from a step repeats, so later lines are deleted."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._path = folder / METRICS
        self._samples = folder / SAMPLES
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True) if self._path.exists() else []
        earlier_lines = [line for line in lines if line.endswith("\n") and 0 < _step_of(line) <= step]
        write_text_atomically(self._path, "".join(earlier_lines))
        for number, path in sample_pictures(folder):
            if number > step:
                path.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._writer.close()

    def write(self, event: str, step: int, seconds: float, values: dict[str, float], **details: object) -> None:
        """Write a line of numbers. details: Values for the file alone, not for TensorBoard."""
        line = {"event": event, "step": step, "seconds": round(seconds, 1), **details, **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(f"{event}/{name}", value, step)
        self._writer.flush()

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Write a sample of the network's output at a step: uint8 [row, column, 3]."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG", optimize=True)
        self._samples.mkdir(exist_ok=True)
        write_bytes_atomically(self._samples / f"step-{step:06d}.png", stream.getvalue())


def validations(folder: Path) -> tuple[dict[str, float], ...]:
    """Return the validations of a training, each with `step` and its metrics to four digits."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = [entry for entry in map(json.loads, lines) if entry["event"] == "validation"]
    details = ("event", "seconds", "best", "warnings", "ended")
    return tuple({name: round(value, 4) for name, value in e.items() if name not in details} for e in entries)


def sample_pictures(folder: Path) -> list[tuple[int, Path]]:
    """Return the sample pictures of a training, each with its step, in the order of steps."""
    pictures = ((path.stem.removeprefix("step-"), path) for path in (folder / SAMPLES).glob("step-*.png"))
    return sorted((int(step), path) for step, path in pictures if step.isdecimal())


def _step_of(line: str) -> int:
    """Return the step of a line; 0 for a line damaged by a crash."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0
