"""Program that works in a project until it is killed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACTrainingLib.project.annotation_files import ImportedAnnotations, SliceAnnotations, SliceLabel
from CACTrainingLib.project.annotations import read_annotated_mask, slice_annotations, write_mask
from CACTrainingLib.project.project import USES, NewScan, Project

ANNOTATOR, READER = "Anna", "reader"
POOL = 30
"""Number of scans that can be added."""
MAX_SCANS = 6
KINDS = ["label"] * 6 + ["undo"] * 2 + ["mask", "use", "split"]
"""Kinds of steps of a project with several scans, besides adding and removing one, by their frequency."""


def patient(name: str) -> str:
    return f"patient {int(name[4:]) // 2}"


class Annotating:
    """Steps in a project, whose scans lie beside its folder. They are the same in equal projects."""

    def __init__(self, folder: Path) -> None:
        self.project = Project.open(folder)
        self._opened: dict[str, SliceAnnotations] = {}

    def state(self) -> dict:
        """Read uses, labels and masks from the disk. Fails if a scan lacks its imported annotations."""
        uses, labels, masks = {}, {}, {}
        for scan in self.project.scans:
            uses[scan.name] = scan.use
            assert set(slice_annotations(self.project, scan.id, READER).labels) == {1, 2, 3}
            labels[scan.name] = dict(slice_annotations(self.project, scan.id, ANNOTATOR).labels)
            if (mask := read_annotated_mask(self.project, scan.id, ANNOTATOR, "heart")) is not None:
                (masks[scan.name],) = map(int, np.unique(sitk.GetArrayFromImage(mask)))
        return {"uses": uses, "labels": labels, "masks": masks}

    def next_step(self, draw: random.Random) -> list:
        """Draw a step that changes the stored state."""
        state = self.state()
        names = sorted(state["uses"])
        kind = draw.choice(KINDS) if len(names) > 2 and draw.random() > 0.1 else "add"
        if kind == "add":
            outside = sorted({f"scan{n}" for n in range(POOL)} - set(names))
            return ["remove", draw.choice(names)] if len(names) > MAX_SCANS else ["add", draw.choice(outside)]
        name = draw.choice(names)
        if kind == "undo" and self._slices(name).can_undo:
            return ["undo", name]
        if kind == "mask":
            return ["mask", name, state["masks"].get(name, 0) % 200 + 1]
        if kind == "use":
            return ["use", name, draw.choice([use for use in ("", *USES) if use != state["uses"][name]])]
        if kind == "split" and "" in state["uses"].values():
            return ["split", draw.randrange(100)]
        k = draw.randrange(40)
        labels = [label.value for label in SliceLabel if label != state["labels"][name].get(k)]
        return ["label", name, k, draw.choice(labels)]

    def do(self, kind: str, *arguments) -> None:
        name, *more = arguments
        if kind == "label":
            self._slices(name).set(more[0], SliceLabel(more[1]), 1.0)
        elif kind == "undo":
            self._slices(name).undo()
        elif kind == "mask":
            image = sitk.GetImageFromArray(np.full((20, 30, 30), more[0], np.uint8))
            write_mask(self.project, self._id(name), ANNOTATOR, "heart", image)
        elif kind == "add":
            imported = ImportedAnnotations(READER, dict.fromkeys((1, 2, 3), SliceLabel.UNSURE))
            ct = self.project.folder.parent / f"{name}.nii"
            assert self.project.add([NewScan(name, patient(name), ct, annotations=lambda: imported)]).added
        elif kind == "remove":
            self.project.remove(self._id(name))
            self._opened.pop(name, None)
        elif kind == "use":
            self.project.set_use({patient(name): more[0]})
        else:
            self.project.split(seed=name)

    def _id(self, name: str) -> str:
        return next(scan.id for scan in self.project.scans if scan.name == name)

    def _slices(self, name: str) -> SliceAnnotations:
        return self._opened.setdefault(name, slice_annotations(self.project, self._id(name), ANNOTATOR))


def work(folder: Path, seed: int, done) -> None:
    """Do one step after another, without end. done: Shared number of finished steps."""
    annotating, draw = Annotating(folder), random.Random(seed)
    while True:
        annotating.do(*annotating.next_step(draw))
        done.value += 1
