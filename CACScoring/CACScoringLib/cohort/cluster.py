"""Which Dask cluster does the work: this machine, a scheduler, SLURM, or what a file describes."""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.ct import CTError

LOCAL = "local"

CLOSE_SECONDS = 30.0
"""How long workers may take to end."""

BOARD = "127.0.0.1:8787"
"""Where the dashboard listens: it shows names of scans, and asks nobody who they are."""

_ADDRESS = re.compile(r"(tcp|tls)://[\w.\-\[\]:]+:\d+")
_MODULES = {
    "LocalCluster": "distributed",
    "SSHCluster": "distributed",
    **dict.fromkeys(
        ("HTCondorCluster", "LSFCluster", "MoabCluster", "OARCluster", "PBSCluster", "SGECluster", "SLURMCluster"),
        "dask_jobqueue",
    ),
}
"""Classes that a file may name. Others are refused: making any class of any module would run what the file wants."""
_KEYS = {"class", "kwargs", "workers"}

_CONFIG: dict[str, Any] = {
    # A job whose worker died is given back at once: `workers` tries it once more, alone.
    "distributed.scheduler.allowed-failures": 0,
    # No results stay in the workers, so that spilling or pausing would free nothing; a worker that takes more than its
    # limit is ended and begun anew.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
}


class ClusterError(CTError):
    """The cluster cannot be used as asked. The message says what to do."""


@dataclass(frozen=True)
class ClusterChoice:
    """A cluster as `--cluster` names it, checked; see `cluster_choice`.

    name: as given. address: of a scheduler. made_by: name of the class that makes a cluster, with kwargs. workers: how
    many, as the file tells. All None for this machine.
    """

    name: str = LOCAL
    address: str | None = None
    made_by: str | None = None
    kwargs: Mapping[str, Any] | None = None
    workers: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether the workers are processes of this machine, which share its memory."""
        return self.address is None and self.made_by is None

    @property
    def is_of_batch_system(self) -> bool:
        """Whether dask-jobqueue begins the workers."""
        return _MODULES.get(self.made_by or "") == "dask_jobqueue"


def cluster_choice(text: str) -> ClusterChoice:
    """What `--cluster` names: "local", "tcp://HOST:PORT" or "tls://…", "slurm", or a YAML or JSON file.

    A file is a mapping with `class` (one of dask-jobqueue, SSHCluster or LocalCluster) and optionally
    `kwargs` and `workers`. Raises ClusterError.
    """
    if text == LOCAL:
        return ClusterChoice()
    if _ADDRESS.fullmatch(text):
        return ClusterChoice(text, address=text)
    if text == "slurm":
        return ClusterChoice(text, made_by="SLURMCluster", kwargs={})
    if not Path(text).is_file():
        raise ClusterError(f"There is no cluster {text!r}. Give local, tcp://HOST:PORT, slurm, or a YAML or JSON file.")
    return _described(Path(text))


def _described(path: Path) -> ClusterChoice:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ClusterError(f"{path} cannot be read as YAML or JSON ({error}). Correct the file.") from error
    if not isinstance(content, dict) or "class" not in content or not set(content) <= _KEYS:
        raise ClusterError(
            f"{path} describes no cluster: it needs class, such as SLURMCluster, and may have kwargs and workers. "
            "Correct the file."
        )
    name, kwargs = str(content["class"]).rpartition(".")[2], content.get("kwargs") or {}
    if name not in _MODULES or str(content["class"]) not in (name, f"{_MODULES[name]}.{name}"):
        raise ClusterError(
            f"{path} names the class {content['class']!r}. Write one of {', '.join(sorted(_MODULES))} in its place."
        )
    workers = content.get("workers")
    if not isinstance(kwargs, dict) or not (workers is None or (isinstance(workers, int) and workers > 0)):
        raise ClusterError(f"In {path}, kwargs has to be a mapping and workers a number from 1. Correct the file.")
    return ClusterChoice(str(path), made_by=name, kwargs=kwargs, workers=workers)


_asked_for: ContextVar[ClusterChoice | None] = ContextVar("cluster", default=None)


@contextmanager
def working_on(choice: ClusterChoice) -> Iterator[None]:
    """While it lasts, `chosen_cluster` is this one, however deep in a command work is shared out."""
    token = _asked_for.set(choice)
    try:
        yield
    finally:
        _asked_for.reset(token)


def chosen_cluster() -> ClusterChoice:
    """The cluster of `working_on`; else this machine."""
    return _asked_for.get() or ClusterChoice()


@contextmanager
def started(choice: ClusterChoice, count: int, memory_bytes: int | None) -> Iterator[Any]:
    """Give the address of the scheduler, or a cluster that is made, and closed at the end.

    Args:
        choice: Which one.
        count: Workers, of one thread each where they are made here.
        memory_bytes: Limit of each worker on this machine; None for none.

    Raises:
        ClusterError: The cluster cannot be made.
    """
    if choice.address is not None:
        yield choice.address
        return
    import dask
    from distributed import LocalCluster

    with dask.config.set(_CONFIG), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use")
        if choice.is_local:
            board = BOARD if find_spec("bokeh") else None
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=memory_bytes or 0,
                dashboard_address=board,
                silence_logs=logging.CRITICAL,
                preload=f"{__package__}.in_worker",
            )
        else:
            cluster = _made(choice)
            cluster.scale(count)
        try:
            yield cluster
        finally:
            # What does not end in time on a busy machine ends with this process; so does a worker that is just being
            # begun, at which multiprocessing asserts "can only join a started process".
            with suppress(TimeoutError, asyncio.TimeoutError, AssertionError):
                cluster.close(timeout=CLOSE_SECONDS)


def _made(choice: ClusterChoice) -> Any:
    try:
        made_by = choice.made_by or ""
        return getattr(import_module(_MODULES[made_by]), made_by)(**_with_own_board(choice))
    except Exception as error:  # each class has its own
        raise ClusterError(
            f"--cluster {choice.name} could not be begun: {type(error).__name__}: {error}. What it needs may stand in "
            "the configuration of Dask (~/.config/dask) or in a file with class and kwargs."
        ) from error


def _with_own_board(choice: ClusterChoice) -> dict[str, Any]:
    """The kwargs of a cluster whose scheduler is begun here; its dashboard is for this machine unless asked otherwise.

    Dask's own default listens on all interfaces.
    """
    import dask

    kwargs = dict(choice.kwargs or {})
    if choice.made_by == "LocalCluster":
        return {"dashboard_address": BOARD, **kwargs}
    if _MODULES[choice.made_by or ""] == "dask_jobqueue":
        section = f"jobqueue.{(choice.made_by or '').removesuffix('Cluster').lower()}.scheduler-options"
        configured = dask.config.get(section, None) or {}
        kwargs["scheduler_options"] = {
            "dashboard_address": BOARD,
            **configured,
            **(kwargs.get("scheduler_options") or {}),
        }
    return kwargs
