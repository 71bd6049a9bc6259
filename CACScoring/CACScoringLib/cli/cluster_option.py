"""The option `--cluster`: who does what a command shares out."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext

LOCAL = "local"


def add_cluster_argument(parser: argparse.ArgumentParser, work: str) -> None:
    """Add the option. work: what the workers do, for the help."""
    parser.add_argument(
        "--cluster",
        default=LOCAL,
        metavar="CLUSTER",
        help=f"who {work}: local (default: processes of this computer), the address tcp://HOST:PORT of a Dask "
        "scheduler, or a batch system, such as slurm, as Dask is configured for it",
    )


def shares_out(parser: argparse.ArgumentParser) -> bool:
    """Whether a command has workers."""
    return any("--workers" in action.option_strings for action in parser._actions)


def extras_of_cluster(options: argparse.Namespace) -> tuple[str, ...]:
    """What the option needs beyond the base. Raises ClusterError."""
    if getattr(options, "cluster", LOCAL) == LOCAL:
        return ()
    from ..cohort.cluster import ClusterChoice

    return ("cluster",) if ClusterChoice(options.cluster).is_of_batch_system else ()


def on_cluster(options: argparse.Namespace) -> AbstractContextManager[None]:
    """While it lasts, what is shared out goes to the cluster that was asked for. Raises ClusterError."""
    if getattr(options, "cluster", LOCAL) == LOCAL:
        return nullcontext()
    from ..cohort.cluster import ClusterChoice, working_on

    return working_on(ClusterChoice(options.cluster))
