"""Run from the repository's root: PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python -m fuzz --help"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from .targets import TARGETS
from .watched import answers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Change inputs at random, and read them.")
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first; one number gives one input")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="KIND", help="kinds")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    tasks = ((name, options.first + n) for name in options.only for n in range(options.count))
    wrong: Counter[str] = Counter()
    total = 0
    for name, number, done, complaint in answers(tasks, options.workers):
        total += 1
        if complaint:
            wrong[name] += 1
            print(f"{name} {number}: {done}\n    {complaint.strip()}", flush=True)
    print(f"{total} inputs, {wrong.total()} wrong {dict(wrong) or ''}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
