"""Other processes of the system: whether one lives, and how to end it with all it has started."""

from __future__ import annotations

import os
import signal
import subprocess


def is_alive(process_id: int) -> bool:
    """Whether a process of this number runs. Numbers are given again: it need not be the one that was meant."""
    if os.name == "nt":
        # There, signal 0 would end it.
        command = ["tasklist", "/FI", f"PID eq {process_id}", "/NH", "/FO", "CSV"]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return f'"{process_id}"' in listing
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_tree(process_id: int) -> None:
    """End a process and its descendants: Slicer's Python is a launcher, and what it runs is its child."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process_id)], capture_output=True, check=False)
        return
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    doomed = [process_id]
    for parent in doomed:
        doomed += [child for child, its_parent in pairs if its_parent == parent]
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
