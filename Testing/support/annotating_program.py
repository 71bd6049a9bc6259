"""Program that works in a project until it is killed, and the state that the project must have then.

Run it with the folder of a project. For each line of input, an `Expected` state, it starts a worker that continues from
that state until it is killed. Workers print each step before they do it, and its seconds when it is done.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACTrainingLib.project.annotation_files import ImportedAnnotations, SliceAnnotations, SliceLabel
from CACTrainingLib.project.annotations import read_mask, slice_annotations, write_mask
from CACTrainingLib.project.project import USES, NewScan, Project
from CACTrainingLib.project.split import split_patients

ANNOTATOR, READER = "Anna", "reader"
POOL = 30
"""Number of scans that can be added."""
MAX_SCANS = 6
SHARES = (0.6, 0.2, 0.2)


@dataclass
class Expected:
    """Expected state of the project by name of a scan; each patient has two scans.

    Attributes:
        uses: Use of each scan.
        labels: Labels by slice index k.
        presses: Label that each key press replaced, as [k, label].
        masks: Value of every voxel of the heart mask.
    """

    uses: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    presses: dict[str, list] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)

    def visible(self) -> dict:
        """Part of the state that is stored on the disk."""
        labels = {name: values for name, values in self.labels.items() if values}
        return {"uses": self.uses, "labels": labels, "masks": self.masks}

    def after(self, step: list) -> Expected:
        new = copy.deepcopy(self)
        getattr(new, f"_{step[0]}")(*step[1:])
        return new

    def _label(self, name: str, k: str, label: str) -> None:
        labels = self.labels.setdefault(name, {})
        self.presses.setdefault(name, []).append([k, labels.get(k)])
        labels[k] = label

    def _undo(self, name: str) -> None:
        k, label = self.presses[name].pop()
        del self.labels[name][k]
        if label:
            self.labels[name][k] = label

    def _mask(self, name: str, value: int) -> None:
        self.masks[name] = value

    def _add(self, name: str) -> None:
        uses = [use for scan, use in self.uses.items() if patient(scan) == patient(name) and use]
        self.uses[name] = uses[0] if uses else ""

    def _remove(self, name: str) -> None:
        for part in (self.uses, self.labels, self.presses, self.masks):
            part.pop(name, None)

    def _use(self, name: str, use: str) -> None:
        for scan in self.uses:
            if patient(scan) == patient(name):
                self.uses[scan] = use

    def _split(self, seed: int) -> None:
        assigned = split_patients({patient(name): use for name, use in self.uses.items()}, SHARES, seed, {})
        for name, use in self.uses.items():
            self.uses[name] = use or assigned[patient(name)]

    def next_step(self, draw: random.Random) -> list:
        """Draw a step that changes the stored state."""
        names = sorted(self.uses)
        outside = sorted({f"scan{n}" for n in range(POOL)} - set(names))
        kinds = ["label"] * 6 + ["undo"] * 2 + ["mask", "use", "split"]
        kind = draw.choice(kinds) if len(names) > 2 and draw.random() > 0.1 else "add"
        if kind == "add":
            return ["remove", draw.choice(names)] if len(names) > MAX_SCANS else ["add", draw.choice(outside)]
        name = draw.choice(names)
        if kind == "undo" and self.presses.get(name):
            return ["undo", name]
        if kind == "mask":
            return ["mask", name, self.masks.get(name, 0) % 200 + 1]
        if kind == "use":
            return ["use", name, draw.choice([use for use in ("", *USES) if use != self.uses[name]])]
        if kind == "split" and "" in self.uses.values():
            return ["split", draw.randrange(100)]
        k = str(draw.randrange(40))
        now = self.labels.get(name, {}).get(k)
        return ["label", name, k, draw.choice([label.value for label in SliceLabel if label.value != now])]


def patient(name: str) -> str:
    return f"patient {int(name[4:]) // 2}"


def disk_state(project: Project) -> dict:
    """Read the state on the disk, as `Expected.visible`. Fails if a scan lacks its imported annotations."""
    uses, labels, masks = {}, {}, {}
    for scan in project.scans:
        uses[scan.name] = scan.use
        assert set(slice_annotations(project, scan.id, READER).labels) == {1, 2, 3}
        annotated = slice_annotations(project, scan.id, ANNOTATOR).labels
        if annotated:
            labels[scan.name] = {str(k): label.value for k, label in annotated.items()}
        if (mask := read_mask(project, scan.id, ANNOTATOR, "heart")) is not None:
            (masks[scan.name],) = map(int, np.unique(sitk.GetArrayFromImage(mask)))
    return {"uses": uses, "labels": labels, "masks": masks}


def work(folder: Path, expected: Expected, draw: random.Random) -> None:
    """Do one step after another, without end."""
    project = Project.open(folder)
    opened: dict[str, SliceAnnotations] = {}
    while True:
        step = expected.next_step(draw)
        say("begin", step)
        start = time.perf_counter()
        _do(project, opened, *step)
        say("done", [step, time.perf_counter() - start])
        expected = expected.after(step)


def _do(project: Project, opened: dict[str, SliceAnnotations], kind: str, *arguments) -> None:
    ids = {scan.name: scan.id for scan in project.scans}
    if kind in ("label", "undo"):
        name = arguments[0]
        slices = opened.setdefault(name, slice_annotations(project, ids[name], ANNOTATOR))
        if kind == "label":
            slices.set(int(arguments[1]), SliceLabel(arguments[2]), 1.0)
        else:
            slices.undo()
    elif kind == "mask":
        image = sitk.GetImageFromArray(np.full((20, 30, 30), arguments[1], np.uint8))
        write_mask(project, ids[arguments[0]], ANNOTATOR, "heart", image)
    elif kind == "add":
        labels = dict.fromkeys((1, 2, 3), SliceLabel.UNSURE)
        come = ImportedAnnotations(READER, labels, None, None)
        ct = project.folder.parent / f"{arguments[0]}.nii"
        assert project.add([NewScan(arguments[0], patient(arguments[0]), ct, annotations=lambda: come)]).added
    elif kind == "remove":
        project.remove(ids[arguments[0]])
        opened.pop(arguments[0], None)
    elif kind == "use":
        project.set_use({patient(arguments[0]): arguments[1]})
    else:
        project.split(SHARES, arguments[0])


def say(kind: str, about: object) -> None:
    os.write(1, (json.dumps([kind, about]) + "\n").encode())


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        seed, state = json.loads(line)
        worker = os.fork()
        if not worker:
            try:
                work(folder, Expected(**state), random.Random(seed))
            except BaseException as error:
                say("error", repr(error))
            os._exit(1)
        say("worker", worker)
        os.waitpid(worker, 0)
        say("ended", worker)


def as_line(seed: int, expected: Expected) -> str:
    """Line of input for `main` that starts a worker."""
    return json.dumps([seed, asdict(expected)]) + "\n"


if __name__ == "__main__":
    main()
