"""Trainings in the background, as a panel starts, follows, ends and resumes them. See `run_folder` for their files.

A training outlives whoever started it. What is going on is read from its folder alone, so that any process may ask, at
any time: whether it runs is whether its lock is held; how it ended is in its last lines.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.processes import kill_tree

from .curves import METRICS
from .curves import sample_pictures as sample_pictures
from .run_folder import CHECKPOINT, PROGRESS, is_locked, read_run, write_run

ENDING = ".training"
START_SECONDS = 60.0
"""PyTorch may take as long to load before a training holds its lock."""

STOP_SECONDS = 10.0

INTERRUPTED = 4
"""Exit code of the command line."""

_MODULE = "CACTrainingLib.cli"
_DISASTERS = ("Traceback (most recent call last)", "Fatal Python error", ": error: ", "No module named")

_started: dict[Path, subprocess.Popen] = {}
"""By folder, to tell a process that has ended from one that lives on."""


class TrainingRunError(CTError):
    """A training cannot be started, ended or resumed. The message says why and what to do."""


@dataclass(frozen=True)
class RunState:
    """State of a training.

    state: "starting", "running", "done" (the model is written), "failed" (message says why) or "stopped" (it was ended
    from outside). steps: at most, None before it is known. seconds: of training. message: what it does, or how it
    ended. warnings: what is wrong with it now. best: of the best validation, `step` and metrics. can_resume: whether
    `resume` continues from a checkpoint.
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
    """Names of the models that are or were trained in a folder; the one begun last comes first."""
    found = [path for path in models.glob(f"*{ENDING}") if path.is_dir()] if models.is_dir() else []
    begun = {path: str(read_run(path).get("started", "")) for path in found}
    return [path.name.removesuffix(ENDING) for path in sorted(found, key=lambda p: (begun[p], p.name), reverse=True)]


def state_of(folder: Path) -> RunState:
    """State of the training in a folder (MODEL.training). Raises TrainingRunError when there is no such folder."""
    if not folder.is_dir():
        raise TrainingRunError(f"There is no training in {folder}.")
    run, course, output = read_run(folder), _read_metrics(folder), _read_progress(folder)
    state, message = _ending(folder, run, output)
    if state == "running":
        message = output.doing()
    elif state == "done" and course.early_stop:
        message = course.early_stop
    warned = {line["code"]: line["message"] for line in output.events if line.get("event") == "warning"}
    warnings = {code: text for code, text in warned.items() if code not in course.judged} | course.warnings
    arguments = run.get("arguments") or []
    return RunState(
        name=folder.name.removesuffix(ENDING),
        network=run.get("network") or (arguments[1] if len(arguments) > 1 else ""),
        state=state,
        step=course.step,
        steps=run.get("steps"),
        seconds=course.seconds,
        message=message,
        warnings=tuple(warnings.values()),
        best=course.best,
        can_resume=state in ("stopped", "failed") and bool(arguments) and (folder / CHECKPOINT).exists(),
    )


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of everything that was measured, by name: "training/loss", "validation/auc" and so on."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for line in _steps(folder):
        for name, value in _numbers(line).items():
            steps, values = curves.setdefault(f"{line['event']}/{name}", ([], []))
            steps.append(line["step"])
            values.append(value)
    return curves


def _numbers(line: dict) -> dict[str, float]:
    """Measured values of a line of `metrics.jsonl`."""
    known = {name: value for name, value in line.items() if type(value) in (int, float) and math.isfinite(value)}
    return {name: value for name, value in known.items() if name not in ("step", "seconds")}


def start(python: str, environment: Mapping[str, str], arguments: list[str], folder: Path) -> None:
    """Start a training that lives on when this process ends.

    python, environment: to run it with; CACTrainingLib must be found there. arguments: of `cac` ("train", network,
    "--data", …, "--progress", "json"). folder: MODEL.training beside the model in `--output`.
    Raises TrainingRunError when it runs already, or an earlier one would be lost.
    """
    _check_idle(folder)
    if (folder / CHECKPOINT).exists() and "--resume" not in arguments:
        raise TrainingRunError(f"{folder} holds an earlier training. Resume it, or choose another name.")
    card = folder.with_name(f"{folder.name.removesuffix(ENDING)}.json")
    if card.exists() and "--overwrite" not in arguments:
        raise TrainingRunError(f"There is a model {card} already. Choose another name.")
    _launch(python, environment, {"arguments": arguments, "folder": str(Path.cwd())}, folder)


def resume(python: str, environment: Mapping[str, str], folder: Path) -> None:
    """Go on with a training from its checkpoint, or begin again where it came to none. Raises TrainingRunError."""
    _check_idle(folder)
    run = read_run(folder)
    arguments = run.get("arguments")
    if not arguments:
        message = f"How the training in {folder} was started is not known. Resume it with: cac train … --resume."
        raise TrainingRunError(message)
    if (folder / CHECKPOINT).exists() and "--resume" not in arguments:
        arguments = [*arguments, "--resume"]
    known = {name: value for name, value in run.items() if name not in ("pid", "launcher")}
    _launch(python, environment, {**known, "arguments": arguments}, folder)


def stop(folder: Path) -> None:
    """End a training and all its processes; it can be resumed. Nothing happens where none runs.

    Raises TrainingRunError when it runs on another machine, or does not end.
    """
    state = state_of(folder).state
    run = read_run(folder)
    if state not in ("starting", "running"):
        return
    if run.get("host") not in (None, platform.node()):
        raise TrainingRunError(f"The training in {folder} runs on {run['host']}. End it there.")
    process_id = run.get("pid", run.get("launcher"))
    if isinstance(process_id, int):
        kill_tree(process_id)
    ending = time.monotonic() + STOP_SECONDS
    while state_of(folder).state in ("starting", "running"):
        if time.monotonic() > ending:
            raise TrainingRunError(f"The training in {folder} could not be ended. End process {process_id} yourself.")
        time.sleep(0.05)


def _check_idle(folder: Path) -> None:
    if folder.is_dir() and state_of(folder).state in ("starting", "running"):
        raise TrainingRunError(f"The training in {folder} is running already. Stop it first, or choose another name.")


def _launch(python: str, environment: Mapping[str, str], run: dict, folder: Path) -> None:
    """run: what is known of it, with the arguments and the folder they were given in."""
    now = datetime.now(timezone.utc)
    run = {**run, "started": now.isoformat(timespec="seconds"), "host": platform.node()}
    where = run.get("folder")
    own: dict[str, object] = {"start_new_session": True}
    if os.name == "nt":  # a hidden console, which what it starts shares
        own = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_run(folder, run)
        with (folder / PROGRESS).open("ab") as stream:
            # After half a line of one that was killed.
            stream.write(b"\n" + json.dumps({"event": "started", "time": now.timestamp()}).encode() + b"\n")
            stream.flush()
            process = subprocess.Popen(
                [python, "-m", _MODULE, *run["arguments"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=dict(environment),
                cwd=where if where and Path(where).is_dir() else None,
                **own,
            )
        _started[folder.resolve()] = process
        write_run(folder, {**read_run(folder), "launcher": process.pid})
    except OSError as error:
        raise TrainingRunError(f"The training in {folder} could not be started: {error}.") from error


@dataclass
class _Course:
    """Summary of `metrics.jsonl`. warnings: messages by code, of the last validation; judged: of all."""

    step: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)
    early_stop: str = ""


def _read_metrics(folder: Path) -> _Course:
    course = _Course()
    for line in _steps(folder):
        course.step, course.seconds = line["step"], line["seconds"]
        if line["event"] == "validation":
            course.warnings, course.early_stop = line["warnings"], line["ended"]
            course.judged |= course.warnings.keys()
            if line["best"]:
                course.best = {"step": line["step"], **_numbers(line)}
    return course


_DOING = {"scans": "Preparing scans", "training": "Training", "model": "Evaluating and writing the model"}


@dataclass
class _Output:
    """Output of the process since its last start: its events, of the counts the last alone, and lines of no JSON."""

    launched: float
    events: list[dict]
    other: list[str]

    def end(self) -> dict:
        """The event that the process ended with; empty where it did not."""
        return next((line for line in reversed(self.events) if line.get("event") in ("done", "failed")), {})

    def doing(self) -> str:
        """Present step of the process, in words."""
        step = next((line for line in reversed(self.events) if line.get("event") == "step"), {}).get("step")
        count = self.events[-1] if self.events else {}
        if step == "scans" and count.get("event") == "counted" and "count" in count:
            return f"{_DOING['scans']}: {count.get('done')} of {count['count']}"
        return _DOING.get(str(step), "")


def _read_progress(folder: Path) -> _Output:
    texts = _texts(folder / PROGRESS)
    starts = [n for n, text in enumerate(texts) if text.startswith('{"event": "started"')]
    if starts:
        texts = texts[starts[-1] :]
    # Most lines only count, and only the last of all is of interest.
    texts = [text for text in texts[:-1] if not text.startswith('{"event": "counted"')] + texts[-1:]
    lines = [(text, _parsed(text)) for text in texts]
    events = [line for _, line in lines if line is not None]
    launched = float(events[0].get("time", 0.0)) if starts and events else 0.0
    return _Output(launched, events, [text for text, line in lines if line is None])


def _ending(folder: Path, run: dict, output: _Output) -> tuple[str, str]:
    """State, and the message that goes with it."""
    if is_locked(folder):
        return "running", ""
    end = output.end()
    if end.get("event") == "done":
        return "done", "The model is written."
    if end:
        return "stopped" if end.get("exit_code") == INTERRUPTED else "failed", str(end.get("message"))
    if _is_alive(folder, run, output):
        # Without the lock it is loading PyTorch, or about to say why it gave up.
        return "running" if "pid" in run else "starting", ""
    if any(sign in text for text in output.other for sign in _DISASTERS):
        return "failed", output.other[-1]
    if not output.launched and folder.with_name(f"{folder.name.removesuffix(ENDING)}.json").exists():
        return "done", "The model is written."
    return "stopped", "Ended from outside before it was done."


def _is_alive(folder: Path, run: dict, output: _Output) -> bool:
    """True if the process that was started lives: known of one's own; of another's, believed for START_SECONDS."""
    launcher = run.get("launcher")
    own = _started.get(folder.resolve())
    if own is not None and own.pid == launcher:
        return own.poll() is None
    if "pid" in run or launcher is None or run.get("host") != platform.node():
        return False
    if time.time() - output.launched >= START_SECONDS:
        return False
    try:
        import psutil
    except ImportError:  # as of a Slicer in which no training was started
        return False
    return psutil.pid_exists(launcher)


def _steps(folder: Path) -> list[dict]:
    """The lines of `metrics.jsonl`, each of which has its step; what a crash has damaged is left out."""
    lines = map(_parsed, _texts(folder / METRICS))
    return [line for line in lines if line is not None]


def _texts(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError:
        return []
    return [line for line in content.decode("utf-8", errors="replace").split("\n") if line.strip()]


def _parsed(text: str) -> dict | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
