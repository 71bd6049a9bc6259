"""Train the adjusted CycleGAN of van Velzen et al., section 3, which learns the calcium map from slice labels alone.

G_R gives the map to subtract from a slice with calcium, G_S one to add to a slice without; discriminators compare the
results with real slices of the other kind. Extensions (see `CycleTraining`) are off in the published settings; with
them, the discriminators can be left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.text import OUTPUT, RESUME
from CACScoringLib.models.preprocessing import MAP_HU, SLICE_SIZE
from CACScoringLib.networks.configs import DiscriminatorConfig, GeneratorConfig, build

from ..data.augmentation import SliceAugmentation
from ..data.datasets import SliceDataset
from ..data.slice_batches import BalancedSampler, Sampling, SliceStore, draw_slices, near_heart, vary_slices
from .decomposition_metrics import collapse, deciding_metric, map_metrics, sample_slices
from .discriminator_gate import LOOKS, DiscriminatorCheck, gate_slices, unmet
from .discriminators import DISCRIMINATORS, ImagePools, disturbed, realness_loss
from .generators import LeakySigmoid, new_generator
from .sample_pictures import decomposition_picture, slices_to_picture
from .settings import LoopSettings
from .task import Task, channels_last
from .weak_labels import NOWHERE, add_spots, draw_spots, label_loss, loss_in_lesions, map_loss, paint_spots


@dataclass(frozen=True)
class CycleTraining:
    """Settings of the adjusted CycleGAN; the defaults are the published ones.

    Attributes:
        learning_rate: Learning rate of the generators' Adam optimiser.
        discriminator_rate: Learning rate of the discriminators' Adam optimiser.
        cycle_weight: Weight λ of the cycle loss.
        identity_weight: Weight α of the identity loss.
        identity_by_area: True if α holds for slices of 224 pixels and shrinks with the area of smaller crops, in which
            the mean dilutes a lesion less.
        sparsity_weight: Weight β of the sparsity loss.
        adversarial_weight: Weight of the adversarial loss; 0 leaves out G_S, the discriminators and their losses.
        label_weight: Weight of the slice labels (`weak_labels`).
        spot_weight: Weight of the drawn spots (`weak_labels`).
        truth_weight: Weight of the true maps, in slices that have one; the others are learned from their labels.
        automatic_weight: Weight of confident automatic lesions (`weak_labels`), in slices without a true map.
        near_heart: True if the map counts near the heart only, as in scoring.
        negative_weight: Weight of negative values in healthy images, which clipped images cannot have.
        dither_hu: Noise on the input of the discriminators. Clipped fat is exactly 0, so that any map there would
            betray a synthetic image.
        pool: Number of earlier synthetic images to show the discriminators again.
        patch_loss: True for a discriminator's loss of every patch (Isola et al. 2017), False for one of each image's
            logit.
        anchored: True if real slices of the other kind stay among the images that discriminators tell from real ones,
            beside the synthetic ones, once the generators learn.
        disturbed_share: Share of these real slices, also in the warm-up, with a haze over the heart, a shift or another
            brightness (`discriminators.disturbed`).
        discriminator_eval: True if the discriminators' batch normalisation uses running averages once the generators
            learn, because batches of real and of synthetic images have other statistics.
        warmup_steps: Steps in which the discriminators alone learn, from slice labels.
        needs_discriminators: True if the generators begin only when the discriminators see calcium in held-out slices
            (`discriminator_gate`), by the mean of the last validations; the training fails after `warmup_steps`
            without.
        first_bias: Bias of the generators' last layer at the start.
        least_slope: Smallest slope of the generators' sigmoid in training, so that a map of 0 can come back; 0 as
            published.
        patients: Digital patients drawn for this training, beside the data (`data.drawn_scans`).
        start: SHA-256 of the generator that G_R began as.
    """

    loop: LoopSettings = field(default_factory=LoopSettings)
    network: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator_network: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    batch_size: int = 4
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-4
    cycle_weight: float = 10.0
    identity_weight: float = 10.0
    identity_by_area: bool = False
    sparsity_weight: float = 0.001
    adversarial_weight: float = 1.0
    label_weight: float = 0.0
    spot_weight: float = 0.0
    truth_weight: float = 0.0
    automatic_weight: float = 0.0
    near_heart: bool = False
    negative_weight: float = 0.0
    dither_hu: float = 0.0
    pool: int = 50
    patch_loss: bool = False
    anchored: bool = False
    disturbed_share: float = 0.0
    discriminator_eval: bool = False
    warmup_steps: int = 0
    needs_discriminators: bool = False
    first_bias: float = 0.0
    least_slope: float = 0.0
    sampling: Sampling = field(default_factory=lambda: Sampling(hard_share=0.0))
    augmentation: SliceAugmentation = field(default_factory=lambda: SliceAugmentation(gain=0.0, offset_hu=0.0))
    patients: int = 0
    validation_slices: int = 80
    start: str | None = None
    method: str = "cyclegan"


class CycleTask(Task[CycleTraining]):
    """Training of the generators and discriminators.

    Args:
        start: The generator that G_R begins as.
        device: Device of the training.
    """

    exported = "remove"

    def __init__(
        self,
        settings: CycleTraining,
        training: SliceDataset,
        validation: SliceDataset,
        start: nn.Module | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        self.config, self.settings = settings.network, settings
        self.training, self.validation = training, validation
        self.store = SliceStore(training, device)
        first_bias = settings.first_bias
        self.modules = {"remove": new_generator(self.config, first_bias) if start is None else start}
        optimizer_modules: dict[str, tuple[str, ...]] = {"generators": ("remove",)}
        if settings.adversarial_weight:
            self.modules["add"] = new_generator(self.config, first_bias)
            torch.manual_seed(settings.loop.seed + 1)
            first = settings.discriminator_network
            # One looks for the brightest calcium, the other for the darkest trace of removed calcium.
            pooling = {"average+max": "average+min"}.get(first.pooling, first.pooling)
            for name, network_config in zip(DISCRIMINATORS, (first, replace(first, pooling=pooling)), strict=True):
                self.modules[name] = build(network_config)
            optimizer_modules = {"generators": ("remove", "add"), "discriminators": DISCRIMINATORS}
        for module in self.modules.values():
            channels_last(module)
        rates = {"generators": settings.learning_rate, "discriminators": settings.discriminator_rate}
        self.optimizers = {
            name: torch.optim.Adam(
                [p for part in parts for p in self.modules[part].parameters()], rates[name], (0.5, 0.999)
            )
            for name, parts in optimizer_modules.items()
        }
        self.sampler = BalancedSampler(training, settings.sampling, labels_only=not settings.truth_weight)
        known_maps = settings.sampling.real_share is None
        self.sample = sample_slices(validation, settings.validation_slices, settings.loop.seed, known_maps)
        self.better = deciding_metric(validation, self.sample)
        self.pictures = slices_to_picture(validation, self.sample)
        self.pools = ImagePools(settings.pool)
        crop = settings.augmentation.crop
        self.check: DiscriminatorCheck | None = None
        if settings.adversarial_weight:
            slices = gate_slices(validation, settings.loop.seed, known_maps)
            self.check = DiscriminatorCheck(validation, slices, crop, settings.dither_hu, device)
        self.waits = self.check is not None and settings.needs_discriminators
        self.looks: list[dict[str, float]] = []
        area = (crop / SLICE_SIZE) ** 2 if settings.identity_by_area else 1.0
        self.weights = {
            "adversarial": settings.adversarial_weight,
            "cycle": settings.cycle_weight,
            "identity": settings.identity_weight * area,
            "sparsity": settings.sparsity_weight,
            "negative": settings.negative_weight,
            "label": settings.label_weight,
            "spots": settings.spot_weight,
            "truth": settings.truth_weight,
            "automatic": settings.automatic_weight,
        }

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = self.sampler.draw(generator, self.settings.batch_size)
        batch = draw_slices(self.store, drawn, self.config, self.settings.augmentation, generator, with_maps=True)
        batch["visible"] = torch.from_numpy(drawn.visible)
        batch["has_map"] = torch.from_numpy(self.training.has_map[drawn.indices])
        if self.settings.spot_weight:
            batch |= draw_spots(int((~drawn.visible).sum()), self.config.neighbours, generator)
        return batch

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, maps = vary_slices(self.store, batch, self.settings.augmentation.crop)
        is_near_heart = near_heart(maps[:, 1:])
        region = is_near_heart if self.settings.near_heart else torch.ones_like(is_near_heart)
        augmented = {"x": x, "visible": batch["visible"], "near_heart": region, "heart": is_near_heart}
        if self.settings.spot_weight:
            n = len(x) - len(batch["spot_place"])  # slices with calcium come first
            augmented["spots"] = paint_spots(is_near_heart[n:], batch)
            augmented["with_spots"] = add_spots(x[n:], augmented["spots"], batch["spot_shares"])
        if self.settings.truth_weight or self.settings.automatic_weight:
            augmented |= {"true": maps[:, :1], "has_map": batch["has_map"]}
        return augmented

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        seed = np.random.SeedSequence([self.settings.loop.seed, fabric.global_rank, number]).generate_state(1)[0]
        noise = torch.Generator(fabric.device).manual_seed(int(seed))
        adversarial = bool(self.settings.adversarial_weight)
        warms_up = not self.settings.needs_discriminators and number < self.settings.warmup_steps
        if self.waits or (adversarial and warms_up):
            self.began = number + 1
            return {"warmup": self._teach_discriminators(self._real_images(batch, noise), fabric, noise, self.waits)}
        if adversarial and self.settings.discriminator_eval:
            for name in DISCRIMINATORS:
                self.modules[name].eval()
        values, synthetic = self._teach_generators(batch, fabric, noise)
        if not adversarial:
            return values
        choice = np.random.default_rng([self.settings.loop.seed, 9, number])
        images = {}
        for name, (real, *other_kind) in self._real_images(batch, noise).items():
            pooled = self.pools.exchange(name, synthetic[name], choice)
            images[name] = (real, pooled, *(other_kind if self.settings.anchored else ()))
        return {**values, "discriminators": self._teach_discriminators(images, fabric, noise)}

    def _real_images(
        self, batch: dict[str, torch.Tensor], noise: torch.Generator
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        """Return by discriminator the real slices of its kind, and those of the other kind, a share disturbed."""
        images, share = batch["x"][:, :1], self.settings.disturbed_share
        real = {"with_calcium": batch["visible"], "without_calcium": ~batch["visible"]}
        other_kind = {name: images[~kind] for name, kind in real.items()}
        if share:
            for name, sign in zip(DISCRIMINATORS, (1.0, -1.0), strict=True):
                other_kind[name] = disturbed(other_kind[name], batch["heart"][~real[name]], share, sign, noise)
        return {name: (images[kind], other_kind[name]) for name, kind in real.items()}

    def _map_logits(self, name: str, x: torch.Tensor, near_heart: torch.Tensor) -> torch.Tensor:
        z = self.modules[name](x, logits=True).float()
        return z.masked_fill(~near_heart, NOWHERE) if self.settings.near_heart else z

    def _as_map(self, z: torch.Tensor) -> torch.Tensor:
        least = self.settings.least_slope
        return LeakySigmoid.apply(z, least) if least else torch.sigmoid(z)  # type: ignore[no-untyped-call]

    def _realness(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Return the logit of each image that the generators learn from, [n]."""
        by_patch = self.settings.patch_loss
        logit = self.modules[name](x, by_patch=by_patch)
        return logit.mean(1) if by_patch else logit

    def _realness_logit(self, name: str, x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        if self.settings.dither_hu:
            x = x + self.settings.dither_hu / MAP_HU * torch.randn(x.shape, generator=noise, device=x.device)
        return self.modules[name](x, by_patch=self.settings.patch_loss).float()

    def _teach_generators(
        self, batch: dict[str, torch.Tensor], fabric: Fabric, noise: torch.Generator
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Teach the generators; return the losses to plot, and the synthetic images for the discriminators."""
        x, near_heart, n = batch["x"], batch["near_heart"], int(batch["visible"].sum())
        # Both kinds in one batch, so that normalisation sees the same mixture everywhere.
        logits = self._map_logits("remove", x, near_heart)
        maps = self._as_map(logits)
        losses = {"identity": maps[n:].mean(), "sparsity": maps[:n].mean()}
        synthetic: dict[str, torch.Tensor] = {}
        if self.weights["negative"]:
            losses["negative"] = functional.relu(maps[:n] - x[:n, :1]).mean()
        if self.weights["label"]:
            losses["label"] = label_loss(logits, near_heart, batch["visible"])
        if self.weights["spots"]:
            spot_logits = self._map_logits("remove", batch["with_spots"], near_heart[n:])
            empty = map_loss(logits[n:], torch.zeros_like(logits[n:]), near_heart[n:])
            losses["spots"] = (map_loss(spot_logits, batch["spots"], near_heart[n:]) + empty) / 2
        if self.weights["truth"] and batch["has_map"].any():
            has_map = batch["has_map"]
            losses["truth"] = map_loss(logits[has_map], batch["true"][has_map], near_heart[has_map])
        if self.weights["automatic"]:
            losses["automatic"] = loss_in_lesions(logits, batch["true"] * ~batch["has_map"][:, None, None, None])
        if self.weights["adversarial"]:
            synthetic = self._cycle(x, near_heart, n, maps, losses, noise)
        loss = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        self.descend("generators", loss, fabric)
        values = {**losses, "map_hu_with_calcium": maps[:n].mean() * MAP_HU}
        values["map_hu_without_calcium"] = maps[n:].mean() * MAP_HU
        return {name: value.detach() for name, value in values.items()}, synthetic

    def _cycle(
        self,
        x: torch.Tensor,
        near_heart: torch.Tensor,
        n: int,
        maps: torch.Tensor,
        losses: dict[str, torch.Tensor],
        noise: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Add the losses that need G_S and the discriminators, equations 1 to 4; return the synthetic images.

        n: Number of slices with visible calcium, which come first. maps: G_R's map of each slice.
        """
        discriminators = [self.modules[name] for name in DISCRIMINATORS]
        for module in discriminators:
            module.requires_grad_(False)
        calcium, healthy = x[:n], x[n:]
        added_maps = self._as_map(self._map_logits("add", x, near_heart))
        without_calcium, with_calcium = calcium[:, :1] - maps[:n], healthy[:, :1] + added_maps[n:]
        losses["identity"] = losses["identity"] + added_maps[:n].mean()
        losses["sparsity"] = losses["sparsity"] + added_maps[n:].mean()
        synthetic = {"without_calcium": without_calcium, "with_calcium": with_calcium}
        logits = [self._realness_logit(name, image, noise) for name, image in synthetic.items()]
        losses["adversarial"] = torch.stack([*map(realness_loss, logits)]).sum()
        back = self._map_logits("add", torch.cat([without_calcium, calcium[:, 1:]], 1), near_heart[:n])
        forth = self._map_logits("remove", torch.cat([with_calcium, healthy[:, 1:]], 1), near_heart[n:])
        calcium_again, healthy_again = without_calcium + self._as_map(back), with_calcium - self._as_map(forth)
        losses["cycle"] = (calcium_again - calcium[:, :1]).abs().mean() + (healthy_again - healthy[:, :1]).abs().mean()
        for module in discriminators:
            module.requires_grad_(True)
        return {name: image.detach() for name, image in synthetic.items()}

    def _teach_discriminators(
        self,
        images: dict[str, tuple[torch.Tensor, ...]],
        fabric: Fabric,
        noise: torch.Generator,
        mixed: bool = False,
    ) -> torch.Tensor:
        """Teach the discriminators; return the loss.

        Args:
            images: By discriminator, real images of its kind, and one or more batches to tell from them.
            fabric: Fabric of the training.
            noise: Source of the dither.
            mixed: True for all in one batch, so that batch normalisation tells nothing of a batch's kind, and its
                running averages hold for each; synthetic images have separate ones, because normalisation would betray
                a mixture.
        """
        loss = torch.zeros((), device=fabric.device)
        for name, parts in images.items():
            if mixed:
                logits = self._realness_logit(name, torch.cat(parts), noise).split([len(part) for part in parts])
            else:
                logits = tuple(self._realness_logit(name, part, noise) for part in parts)
            real_logit, *other_logits = logits
            false_loss = torch.stack([realness_loss(-logit) for logit in other_logits]).mean()
            loss = loss + (realness_loss(real_logit) + false_loss) / 2
        self.descend("discriminators", loss, fabric)
        return loss.detach()

    def validate(self, network: nn.Module) -> dict[str, float]:
        metrics = {} if self.waits else map_metrics(network, self.config, self.validation, self.sample)
        if self.check:
            for name in DISCRIMINATORS:
                self.modules[name].eval()
            with torch.no_grad():
                metrics |= self.check.metrics(self._realness)
        return metrics

    def validated(self, metrics: dict[str, float]) -> None:
        if self.waits:
            self.looks.append({name: value for name, value in metrics.items() if name.endswith(DISCRIMINATORS)})
            self.looks = self.looks[-LOOKS:]
            self.waits = bool(unmet(self.looks))

    def obstacle(self, step: int, is_over: bool) -> DataError | None:
        settings = self.settings
        if is_over and settings.needs_discriminators and not self.waits and self.began >= step:
            return DataError(
                f"The discriminators see calcium only after all {step} steps, so the generators have not begun. "
                f"Start anew with more steps or minutes ({OUTPUT})."
            )
        # The first validation at or after every so many steps.
        is_due = step % max(1, settings.warmup_steps) < settings.loop.validate_every
        if not self.waits or not (is_over or is_due):
            return None
        advice = f"Start anew with more steps or minutes ({OUTPUT})." if is_over else f"Learn longer with {RESUME}."
        training, validation = self.training, self.validation
        patients = len({scan.patient for scan in training.scans if (scan.visible & scan.labelled).any()})
        return DataError(
            f"After {step} steps the discriminators do not see calcium in slices of "
            f"{len({scan.patient for scan in validation.scans})} held-out patients: {'; '.join(unmet(self.looks))}. "
            "The generators have not begun, because they would learn nothing from them. Give more patients with "
            f"calcium ({patients} to train on had some), and start anew; or: {advice}"
        )

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        warnings = self.check.warnings() if self.check else []
        return warnings + (collapse(metrics) if "mass_visible" in metrics else [])

    def has_collapsed(self, metrics: dict[str, float]) -> bool:
        return "mass_visible" in metrics and bool(collapse(metrics))

    def picture(self, network: nn.Module) -> np.ndarray | None:
        return None if self.waits else decomposition_picture(network, self.config, self.validation, self.pictures)

    def state(self) -> dict[str, object]:
        return {"pools": self.pools.images, "waits": self.waits, "looks": self.looks, "began": self.began}

    def restore(self, state: dict[str, Any]) -> None:
        self.pools.images, self.waits, self.looks = state["pools"], state["waits"], state["looks"]
        self.began = state["began"]
