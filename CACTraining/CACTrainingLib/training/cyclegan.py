"""The adjusted CycleGAN of van Velzen et al., section 3: slice labels alone teach the generator the calcium map.

G_R gives the map to subtract from a slice with calcium, G_S one to add to a slice without; discriminators compare the
results with real slices of the other kind. What first experiments needed on top is named in `CycleTraining` and off in
the published settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.options import told
from CACScoringLib.models.preprocessing import MAP_HU, SLICE_SIZE
from CACScoringLib.networks.van_velzen import GeneratorConfig, build

from ..data.augmentation import SliceAugmentation
from ..data.datasets import BalancedSampler, DataError, Sampling, SliceDataset
from .decomposition_metrics import CYCLEGAN_REMEDIES, collapse, map_metrics, watched_slices
from .loop import Task
from .sample_pictures import decomposition_picture, pictured_slices
from .settings import BATCH_SIZE, LEARNING_RATE, LoopSettings
from .slices import varied


@dataclass(frozen=True)
class CycleTraining:
    """Published: batch of 4, rate 0.0001, λ cycle_weight, α identity_weight, β sparsity_weight.

    identity_by_area: α holds for crops of 224 pixels and shrinks with their area, because the mean over a larger image
    dilutes a lesion. negative_weight: of negative values in healthy images, which clipped images cannot have.
    dither_hu: noise on all that discriminators see; clipped fat is exactly 0, so any map there would betray a synthetic
    image. pool: synthetic images kept to show discriminators again. discriminator_eval: their batch normalisation
    uses running averages, because real and synthetic batches have other statistics. warmup_steps: of discriminators
    alone, on slice labels. first_bias: of the generators' last layer at the start. least_slope: of the sigmoid going
    backwards, so that a map that is 0 can come back. choose_by: the validation metric that chooses the weights, "auc"
    (slice labels) or "overlap" (true maps, where known: no longer purely weak supervision). discriminator: "patch", or
    the SHA-256 of the classifier that both began as; start: of the generator that G_R began as.
    """

    loop: LoopSettings
    batch_size: int = told(4, BATCH_SIZE)
    learning_rate: float = told(1e-4, LEARNING_RATE)
    cycle_weight: float = told(10.0, "λ (paper: 10)")
    identity_weight: float = told(10.0, "α (paper: 10)")
    sparsity_weight: float = told(0.001, "β (paper: 0.001)")
    identity_by_area: bool = False
    negative_weight: float = told(0.0, "of negative healthy values (paper: none)")
    dither_hu: float = told(0.0, "noise on what discriminators see, HU (paper: none)")
    pool: int = 50
    discriminator_eval: bool = False
    warmup_steps: int = told(0, "steps that first train the discriminators on slice labels")
    first_bias: float = told(0.0, "bias of the generators' last layer at the start (paper: none)")
    least_slope: float = told(0.0, "least slope of the sigmoid going backwards (paper: none)")
    choose_by: str = told("auc", "metric that chooses the weights: labels or maps", choices=("auc", "overlap"))
    sampling: Sampling = field(default_factory=lambda: Sampling(hard_share=0.0))
    augmentation: SliceAugmentation = field(default_factory=lambda: SliceAugmentation(gain=0.0, offset_hu=0.0))
    validation_slices: int = 80
    start: str | None = None
    discriminator: str = "patch"
    method: str = "cyclegan"


class ClassifierDiscriminator(nn.Module):
    """A slice classifier as a discriminator: [B, 1, j, i] → [B], the logit that the image is a real one of its kind."""

    def __init__(self, classifier: nn.Module, calcium: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.sign = 1.0 if calcium else -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(x, logits=True)
        return self.sign * (logits[:, 1] - logits[:, 0])


class LeakySigmoid(torch.autograd.Function):
    """A sigmoid whose slope, going backwards, is at least `least`; below `floor` nothing pushes it further down."""

    floor = 3e-4

    @staticmethod
    def forward(context, z: torch.Tensor, least: float) -> torch.Tensor:
        p = torch.sigmoid(z)
        context.save_for_backward(p)
        context.least = least
        return p

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (p,) = context.saved_tensors
        slope = (p * (1 - p)).clamp(min=context.least)
        down = (p < LeakySigmoid.floor) & (gradient > 0)
        return gradient * torch.where(down, torch.zeros_like(slope), slope), None


class CycleTask(Task):
    """See `Task`. discriminators: of images with, and without calcium. start: the generator that G_R begins as."""

    exported = "remove"

    def __init__(
        self,
        config: GeneratorConfig,
        settings: CycleTraining,
        training: SliceDataset,
        validation: SliceDataset,
        discriminators: tuple[nn.Module, nn.Module],
        start: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        self.config, self.settings = config, settings
        self.training, self.validation = training, validation
        self.modules = {
            "remove": self._generator() if start is None else start,
            "add": self._generator(),
            "with_calcium": discriminators[0],
            "without_calcium": discriminators[1],
        }
        for module in self.modules.values():
            module.to(memory_format=torch.channels_last)
        own = {"generators": ("remove", "add"), "discriminators": ("with_calcium", "without_calcium")}
        self.optimizers = {
            name: torch.optim.Adam(
                [p for part in parts for p in self.modules[part].parameters()], settings.learning_rate, (0.5, 0.999)
            )
            for name, parts in own.items()
        }
        self.sampler = BalancedSampler(training, settings.sampling)
        self.watched = watched_slices(validation, settings.validation_slices, settings.loop.seed)
        self.pictured = pictured_slices(validation, self.watched)
        self.better = settings.choose_by
        if settings.choose_by == "overlap" and not validation.has_map[self.watched.visible].all():
            raise DataError("No true calcium map is known to choose the weights by. Give --choose-by auc.")
        self.pools: dict[str, list[torch.Tensor]] = {"with_calcium": [], "without_calcium": []}
        crop = settings.augmentation.crop
        area = (crop / SLICE_SIZE) ** 2 if settings.identity_by_area else 1.0
        self.identity_weight = settings.identity_weight * area

    def _generator(self) -> nn.Module:
        return new_generator(self.config, self.settings.first_bias)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = self.sampler.draw(generator, self.settings.batch_size)
        x, _ = varied(self.training, drawn, self.config, self.settings.augmentation, generator)
        count = int(drawn.visible.sum())
        return {"with_calcium": x[:count], "without_calcium": x[count:]}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        seed = np.random.SeedSequence([self.settings.loop.seed, fabric.global_rank, number]).generate_state(1)[0]
        noise = torch.Generator(fabric.device).manual_seed(int(seed))
        if self.settings.discriminator_eval and number >= self.settings.warmup_steps:
            self.modules["with_calcium"].eval()
            self.modules["without_calcium"].eval()
        calcium, healthy = batch["with_calcium"], batch["without_calcium"]
        if number < self.settings.warmup_steps:
            pairs = {"with_calcium": (calcium, healthy), "without_calcium": (healthy, calcium)}
            shown = {name: (real[:, :1], other[:, :1]) for name, (real, other) in pairs.items()}
            return {"warmup": self._teach_discriminators(shown, fabric, noise)}
        values, removed, added = self._teach_generators(calcium, healthy, fabric, noise)
        choice = np.random.default_rng([self.settings.loop.seed, 9, number])
        shown = {
            "with_calcium": (calcium[:, :1], self._pooled("with_calcium", added, choice)),
            "without_calcium": (healthy[:, :1], self._pooled("without_calcium", removed, choice)),
        }
        return {**values, "discriminators": self._teach_discriminators(shown, fabric, noise)}

    def _map(self, name: str, x: torch.Tensor) -> torch.Tensor:
        z = self.modules[name](x, logits=True).float()
        return LeakySigmoid.apply(z, self.settings.least_slope) if self.settings.least_slope else torch.sigmoid(z)

    def _logit(self, name: str, x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        if self.settings.dither_hu:
            x = x + self.settings.dither_hu / MAP_HU * torch.randn(x.shape, generator=noise, device=x.device)
        return self.modules[name](x).float()

    def _teach_generators(
        self, calcium: torch.Tensor, healthy: torch.Tensor, fabric: Fabric, noise: torch.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        settings = self.settings
        _freeze(self.modules, ("with_calcium", "without_calcium"), True)
        n, both = len(calcium), torch.cat([calcium, healthy])
        # Both kinds in one batch, so that normalisation sees the same mixture everywhere.
        taken, given = self._map("remove", both), self._map("add", both)
        removed, added = calcium[:, :1] - taken[:n], healthy[:, :1] + given[n:]
        adversarial = _as_real(self._logit("without_calcium", removed, noise))
        adversarial = adversarial + _as_real(self._logit("with_calcium", added, noise))
        back = removed + self._map("add", torch.cat([removed, calcium[:, 1:]], 1))
        forth = added - self._map("remove", torch.cat([added, healthy[:, 1:]], 1))
        cycle = (back - calcium[:, :1]).abs().mean() + (forth - healthy[:, :1]).abs().mean()
        identity = taken[n:].mean() + given[:n].mean()
        sparsity = taken[:n].mean() + given[n:].mean()
        loss = adversarial + settings.cycle_weight * cycle + self.identity_weight * identity
        loss = loss + settings.sparsity_weight * sparsity
        if settings.negative_weight:
            loss = loss + settings.negative_weight * functional.relu(-removed).mean()
        optimizer = self.optimizers["generators"]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        _freeze(self.modules, ("with_calcium", "without_calcium"), False)
        values = {
            "adversarial": adversarial,
            "cycle": cycle,
            "identity": identity,
            "map_hu_with_calcium": taken[:n].mean() * MAP_HU,
            "map_hu_without_calcium": taken[n:].mean() * MAP_HU,
        }
        return {name: value.detach() for name, value in values.items()}, removed.detach(), added.detach()

    def _teach_discriminators(
        self, shown: dict[str, tuple[torch.Tensor, torch.Tensor]], fabric: Fabric, noise: torch.Generator
    ) -> torch.Tensor:
        loss = torch.zeros((), device=fabric.device)
        for name, (real, other) in shown.items():
            # Real and synthetic images apart, or batch normalisation would tell them apart for the network.
            real_logit, other_logit = self._logit(name, real, noise), self._logit(name, other, noise)
            loss = loss + (_as_real(real_logit) + _as_real(-other_logit)) / 2
        optimizer = self.optimizers["discriminators"]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        return loss.detach()

    def _pooled(self, name: str, images: torch.Tensor, choice: np.random.Generator) -> torch.Tensor:
        """Half of the images, once the pool is full, exchanged for earlier ones (Shrivastava et al. 2017)."""
        if not self.settings.pool:
            return images
        pool, chosen = self.pools[name], []
        for image in images:
            if len(pool) < self.settings.pool:
                pool.append(image)
                chosen.append(image)
            elif choice.random() < 0.5:
                place = int(choice.integers(len(pool)))
                chosen.append(pool[place])
                pool[place] = image
            else:
                chosen.append(image)
        return torch.stack(chosen).contiguous(memory_format=torch.channels_last)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return map_metrics(network, self.config, self.validation, self.watched)

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        return collapse(metrics, CYCLEGAN_REMEDIES)

    def picture(self, network: nn.Module) -> np.ndarray:
        return decomposition_picture(network, self.config, self.validation, self.pictured)

    def state(self) -> dict[str, object]:
        return {"pools": self.pools}

    def restore(self, state: dict[str, object]) -> None:
        self.pools = state["pools"]


def new_generator(config: GeneratorConfig, first_bias: float) -> nn.Module:
    """An untrained generator whose map begins near the sigmoid of the bias; with 0, as PyTorch makes it."""
    network = build(config)
    if first_bias:
        nn.init.constant_(network.last.bias, first_bias)
        nn.init.normal_(network.last.weight, 0, 0.01)
    return network


def _as_real(logit: torch.Tensor) -> torch.Tensor:
    """−log of the probability that these are real: in place of log(1 − D), its gradient does not vanish."""
    return functional.softplus(-logit).mean()


def _freeze(modules: dict[str, nn.Module], names: tuple[str, ...], frozen: bool) -> None:
    for name in names:
        for parameter in modules[name].parameters():
            parameter.requires_grad_(not frozen)
