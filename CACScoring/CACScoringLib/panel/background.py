"""Call a function of the libraries in a background process of the panel, for work that is no command of `cac`.

Run as: python -m CACScoringLib.panel.background FOLDER. The folder holds the call, and then its result, as pickles: it
was made for this call alone, and only its user can write there. Reports progress as `cac score --progress json` does.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.ct import CTScan
    from ..core.progress import Progress

_CALL, _RESULT = "call.pickle", "result.pickle"


def write_call(folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Write a call. function: takes the arguments, then a `Progress`."""
    with (folder / _CALL).open("wb") as file:
        pickle.dump((function, arguments), file, pickle.HIGHEST_PROTOCOL)


def returned_value(folder: Path) -> Any:
    """Return what the function of a folder returned."""
    return pickle.loads((folder / _RESULT).read_bytes())


def write_ct(read: Callable[[], CTScan], target: Path, progress: Progress) -> None:
    """Read a CT and write it to a file that the panel loads fast."""
    import SimpleITK as sitk

    sitk.WriteImage(read().image, str(target))


def main(arguments: list[str]) -> int:
    """Make the call of a folder and return the exit code."""
    from ..core.errors import CTError, OutputError
    from ..core.progress import JsonProgress

    folder, progress = Path(arguments[0]), JsonProgress(sys.stderr)
    try:
        function, given = pickle.loads((folder / _CALL).read_bytes())
        result = function(*given, progress)
        (folder / _RESULT).write_bytes(pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
    except (CTError, OutputError) as error:
        progress.failed(str(error), 3)
    except OSError as error:
        progress.failed(f"The result cannot be written ({error.strerror}). Choose another folder.", 3)
    else:
        return 0
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
