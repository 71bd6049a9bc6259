"""Start, follow, stop and resume trainings in the background, for the panel. See `run_folder` for their files.

A training outlives the process that started it. Its state is read from its folder alone, so that any process can ask
for it: a training whose lock is held is running; the last lines of its output say how it ended.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.version import kill_tree

from .curves import METRICS
from .curves import sample_pictures as sample_pictures
from .run_folder import CHECKPOINT, PROGRESS, is_locked, read_run, write_run

ENDING = ".training"
START_SECONDS = 60.0
"""Longest time from launch to lock, in which PyTorch is loaded."""

STOP_SECONDS = 10.0

INTERRUPTED = 4
"""Exit code of an interrupted command."""

_MODULE = "CACTrainingLib.cli"
_ERROR_SIGNS = ("Traceback (most recent call last)", "Fatal Python error", ": error: ", "No module named")

_processes: dict[Path, subprocess.Popen[bytes]] = {}
"""Trainings started by this process, by folder, to distinguish ended processes from running ones."""


@dataclass(frozen=True)
class RunState:
    """State of a training.

    Attributes:
        name: Name of the model.
        network: Name of the network on the command line.
        state: "starting", "running", "done" (the model is written), "failed" or "stopped" (ended from outside).
        step: Number of steps done.
        steps: Maximum number of steps; None until the training has recorded it.
        seconds: Time spent training.
        message: Present activity, or how the training ended.
        warnings: Messages of the present warnings.
        best: `step` and metrics of the best validation.
        can_resume: True if `resume` continues from a checkpoint.
    """

    name: str
    network: str
    state: str
    step: int = 0
    steps: int | None = None
    seconds: float = 0.0
    message: str = ""
    warnings: tuple[str, ...] = ()
    best: dict[str, float] = field(default_factory=dict)
    can_resume: bool = False


def runs_of(models: Path) -> list[str]:
    """Return the names of the models trained in a folder, the latest start first."""
    folders = [path for path in models.glob(f"*{ENDING}") if path.is_dir()] if models.is_dir() else []
    folders.sort(key=lambda path: (str(read_run(path).get("started", "")), path.name), reverse=True)
    return [path.name.removesuffix(ENDING) for path in folders]


def state_of(folder: Path) -> RunState:
    """Return the state of the training in a folder (MODEL.training). Raises CTError if there is none."""
    if not folder.is_dir():
        raise CTError(f"There is no training in {folder}.")
    run, steps, output = read_run(folder), _steps(folder), _read_progress(folder)
    validations = [line for line in steps if line["event"] == "validation"]
    last_step, validation = (lines[-1] if lines else {} for lines in (steps, validations))
    best = next((line for line in reversed(validations) if line["best"]), None)
    state, message = _ending(folder, run, output)
    if state == "running":
        message = output.step_title()
    elif state == "done":
        message = validation.get("ended") or message
    messages = {line["code"]: line["message"] for line in output.events if line.get("event") == "warning"}
    validation_codes = {code for line in validations for code in line["warnings"]}
    startup_warnings = {code: text for code, text in messages.items() if code not in validation_codes}
    arguments = run.get("arguments") or []
    return RunState(
        name=folder.name.removesuffix(ENDING),
        network=run.get("network") or (arguments[1] if len(arguments) > 1 else ""),
        state=state,
        step=last_step.get("step", 0),
        steps=run.get("steps"),
        seconds=last_step.get("seconds", 0.0),
        message=message,
        warnings=tuple((startup_warnings | validation.get("warnings", {})).values()),
        best={"step": best["step"], **_numbers(best)} if best else {},
        can_resume=state in ("stopped", "failed") and bool(arguments) and (folder / CHECKPOINT).exists(),
    )


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return steps and values of each metric by name: "training/loss", "validation/auc" and so on."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for line in _steps(folder):
        for name, value in _numbers(line).items():
            steps, values = curves.setdefault(f"{line['event']}/{name}", ([], []))
            steps.append(line["step"])
            values.append(value)
    return curves


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a line of `metrics.jsonl`."""
    numbers = {name: value for name, value in line.items() if type(value) in (int, float) and math.isfinite(value)}
    return {name: value for name, value in numbers.items() if name not in ("step", "seconds")}


def start(python: str, environment: Mapping[str, str], arguments: list[str], folder: Path) -> None:
    """Start a training that continues when this process ends.

    Args:
        python: Interpreter to run it with.
        environment: Environment variables, in which the interpreter finds CACTrainingLib.
        arguments: Arguments of `cac` ("train", network, "--data", …, "--progress", "json").
        folder: MODEL.training beside the model in `--output`.

    Raises:
        CTError: It is running already, or an earlier training would be lost.
    """
    _check_idle(folder)
    if (folder / CHECKPOINT).exists() and "--resume" not in arguments:
        raise CTError(f"{folder} holds an earlier training. Resume it, or choose another name.")
    card = folder.with_name(f"{folder.name.removesuffix(ENDING)}.json")
    if card.exists() and "--overwrite" not in arguments:
        raise CTError(f"There is a model {card} already. Choose another name.")
    _launch(python, environment, {"arguments": arguments, "folder": str(Path.cwd())}, folder)


def resume(python: str, environment: Mapping[str, str], folder: Path) -> None:
    """Resume a training from its checkpoint, or restart it if it has none. Raises CTError."""
    _check_idle(folder)
    run = read_run(folder)
    arguments = run.get("arguments")
    if not arguments:
        message = f"How the training in {folder} was started is not known. Resume it as it was started."
        raise CTError(message)
    if (folder / CHECKPOINT).exists() and "--resume" not in arguments:
        arguments = [*arguments, "--resume"]
    record = {name: value for name, value in run.items() if name not in ("pid", "launcher")}
    _launch(python, environment, {**record, "arguments": arguments}, folder)


def stop(folder: Path) -> None:
    """Stop a training and all its processes, if it is running; it can be resumed.

    Raises CTError if it runs on another machine, or does not end.
    """
    if state_of(folder).state not in ("starting", "running"):
        return
    run = read_run(folder)
    if run.get("host") not in (None, platform.node()):
        raise CTError(f"The training in {folder} runs on {run['host']}. End it there.")
    process_id = run.get("pid", run.get("launcher"))
    if isinstance(process_id, int):
        kill_tree(process_id)
    ending = time.monotonic() + STOP_SECONDS
    while state_of(folder).state in ("starting", "running"):
        if time.monotonic() > ending:
            raise CTError(f"The training in {folder} could not be ended. End process {process_id} yourself.")
        time.sleep(0.05)


def _check_idle(folder: Path) -> None:
    if folder.is_dir() and state_of(folder).state in ("starting", "running"):
        raise CTError(f"The training in {folder} is running already. Stop it first, or choose another name.")


def _launch(python: str, environment: Mapping[str, str], run: dict[str, Any], folder: Path) -> None:
    """Start the process in the background. run: Content of `run.json`, with `arguments` and their `folder`."""
    now = datetime.now(timezone.utc)
    run = {**run, "started": now.isoformat(timespec="seconds"), "host": platform.node()}
    working_folder = run.get("folder")
    flags = 0
    if sys.platform == "win32":  # a hidden console, shared by its child processes
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_run(folder, run)
        with (folder / PROGRESS).open("ab") as stream:
            # A killed training may have left half a line.
            stream.write(b"\n" + json.dumps({"event": "started", "time": now.timestamp()}).encode() + b"\n")
            stream.flush()
            process = subprocess.Popen(
                [python, "-m", _MODULE, *run["arguments"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=dict(environment),
                cwd=working_folder if working_folder and Path(working_folder).is_dir() else None,
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        _processes[folder.resolve()] = process
        write_run(folder, {**read_run(folder), "launcher": process.pid})
    except OSError as error:
        raise CTError(f"The training in {folder} could not be started: {error}.") from error


_STEP_TITLES = {"scans": "Preparing scans", "training": "Training", "model": "Evaluating and writing the model"}


@dataclass
class _Output:
    """Output of the process since its last start.

    Attributes:
        start_time: Start of the process in seconds since 1970; 0 if unknown.
        events: Progress events; of "counted" events only the last line.
        plain_lines: Lines that are not JSON.
    """

    start_time: float
    events: list[dict[str, Any]]
    plain_lines: list[str]

    def end(self) -> dict[str, Any]:
        """Return the event that the process ended with, or {}."""
        return next((line for line in reversed(self.events) if line.get("event") in ("done", "failed")), {})

    def step_title(self) -> str:
        """Return the title of the present step, with its count while scans are prepared."""
        step = next((line.get("step") for line in reversed(self.events) if line.get("event") == "step"), None)
        count = self.events[-1] if self.events else {}
        if step == "scans" and count.get("event") == "counted" and "count" in count:
            return f"{_STEP_TITLES['scans']}: {count.get('done')} of {count['count']}"
        return _STEP_TITLES.get(str(step), "")


def _read_progress(folder: Path) -> _Output:
    texts = _texts(folder / PROGRESS)
    starts = [n for n, text in enumerate(texts) if text.startswith('{"event": "started"')]
    if starts:
        texts = texts[starts[-1] :]
    # Most lines are counts, of which only the last line of the file matters.
    texts = [text for text in texts[:-1] if not text.startswith('{"event": "counted"')] + texts[-1:]
    lines = [(text, _parsed(text)) for text in texts]
    events = [line for _, line in lines if line is not None]
    start_time = float(events[0].get("time", 0.0)) if starts and events else 0.0
    return _Output(start_time, events, [text for text, line in lines if line is None])


def _ending(folder: Path, run: dict[str, Any], output: _Output) -> tuple[str, str]:
    """Return the state and its message."""
    if is_locked(folder):
        return "running", ""
    end = output.end()
    if end.get("event") == "done":
        return "done", "The model is written."
    if end:
        return "stopped" if end.get("exit_code") == INTERRUPTED else "failed", str(end.get("message"))
    if _is_alive(folder, run, output):
        # Without the lock it is loading PyTorch, or about to report an error.
        return "running" if "pid" in run else "starting", ""
    if any(sign in text for text in output.plain_lines for sign in _ERROR_SIGNS):
        return "failed", output.plain_lines[-1]
    if not output.start_time and folder.with_name(f"{folder.name.removesuffix(ENDING)}.json").exists():
        return "done", "The model is written."
    return "stopped", "Ended from outside before it was done."


def _is_alive(folder: Path, run: dict[str, Any], output: _Output) -> bool:
    """True if the launched process is alive; one launched elsewhere is believed alive only for START_SECONDS."""
    launcher = run.get("launcher")
    process = _processes.get(folder.resolve())
    if process is not None and process.pid == launcher:
        return process.poll() is None
    if "pid" in run or launcher is None or run.get("host") != platform.node():
        return False
    if time.time() - output.start_time >= START_SECONDS:
        return False
    try:
        import psutil
    except ImportError:  # absent from a Slicer that has started no training
        return False
    return psutil.pid_exists(launcher)


def _steps(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, without those damaged by a crash."""
    lines = map(_parsed, _texts(folder / METRICS))
    return [line for line in lines if line is not None]


def _texts(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError:
        return []
    return [line for line in content.decode("utf-8", errors="replace").split("\n") if line.strip()]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
