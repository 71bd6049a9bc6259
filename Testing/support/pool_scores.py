"""Score the sample here, then in a pool of processes: pool_scores.py fork|spawn. Prints both scores."""

import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import CACScoringLib as cac
from CACScoringLib.mrml.sample_data import sample_file


def score(path: Path) -> cac.CalciumResult:
    return cac.score(cac.read_ct(path))


if __name__ == "__main__":
    print(score(sample_file()).total.agatston)
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, context, initializer=signal.alarm, initargs=(200,)) as pool:
        result = pool.submit(score, sample_file()).result()
    print(result.total.agatston)
    with TemporaryDirectory() as folder:
        result.write(folder)
        print(len(list(Path(folder).glob("report.html"))))
