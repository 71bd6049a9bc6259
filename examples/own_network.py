"""Train a network of one's own on a folder like COCA's, and score its test patients: own_network.py FOLDER RUN STEPS"""

import sys
from pathlib import Path

import torch

import CACScoringLib as cac
from CACScoringLib.core.progress import Progress
from CACScoringLib.statistics.patient_folds import parts_by_patient
from CACTrainingLib.data.scan_dataset import ScanDataset
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.training.loop import train
from CACTrainingLib.training.settings import LoopSettings
from CACTrainingLib.training.task import Task

scans = read_reference(Path(sys.argv[1])).scans
part = parts_by_patient([scan.patient for scan in scans], [0] * len(scans), 5, seed=0)
groups = [[s for s, n in zip(scans, part, strict=True) if n in folds] for folds in ((2, 3, 4), (1,), (0,))]
training, validation, test = map(ScanDataset, groups)
network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv3d(8, 1, 1))


def loss_of(network, item):
    coronary, dense = (item["label"] > 0).float(), (item["image"] >= 130).float()
    return torch.nn.functional.binary_cross_entropy_with_logits(network(item["image"] / 1000), coronary, dense)


class Calcium(Task):
    settings, exported, better = LoopSettings(int(sys.argv[3])), "calcium", "minus_loss"

    def __init__(self):
        self.modules = {"calcium": network}
        self.optimizers = {"calcium": torch.optim.Adam(network.parameters(), 0.01)}

    def batch(self, generator):
        item = training[int(generator.integers(len(training)))]
        first = int(generator.integers(max(1, item["image"].shape[1] - 7)))
        return {name: item[name][:, first : first + 8] for name in ("image", "label")}

    def step(self, batch, fabric, number):
        loss = loss_of(self.modules["calcium"], batch)
        self.descend("calcium", loss, fabric)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validate(self, network):
        return {"minus_loss": -sum(float(loss_of(network, item)) for item in validation)}


outcome = train(Calcium(), Calcium.settings, Path(sys.argv[2]), Progress(), "cpu")
for scan, item in zip(test.scans, test, strict=True):
    ct, predicted = cac.read_ct(scan.ct, scan.series), outcome.load_into(network)(item["image"] / 1000) > 0
    masks = [ct.grid.image(labels[0].byte().numpy()) for labels in (predicted, item["label"])]
    print(scan.name, *(f"{cac.agatston(ct, mask).total.agatston:.1f}" for mask in masks))
