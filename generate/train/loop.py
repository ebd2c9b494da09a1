"""One training loop: everything is passed in, the device and the seed are explicit, nothing global is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from generate.inputs.images import ImageSet, Split
from generate.plan import TrainingSettings
from generate.prune.attention import attention_modules
from generate.train.augmentation import parse_augmentation, shift_views
from generate.train.device import memory_format
from popstats.errors import PopstatsError

# One training step costs about three forward passes: forward, gradient of inputs, gradient of weights.
PASSES_PER_STEP = 3
# On a CPU 1,024 images of ResNet-8 are 64 MB per activation: more than the allocator can be told to keep.
EVALUATION_BATCH = {"cpu": 256, "cuda": 1024}
# Statistics of batch norm are means over images and positions: these many fix them to a fraction of a percent.
RECALIBRATION_IMAGES = 4096
# Enough images for the ranking of filters to settle (Molchanov et al. 2019, arXiv 1906.10771, use a few batches).
TAYLOR_IMAGES = 1024
TAYLOR_BATCH = 128
# `steps` schedule: the rate falls to a tenth at 50 % and 75 % of the training (He et al. 2016, arXiv 1512.03385, CIFAR).
STEPS_AT = (0.5, 0.75)
# AdamW's largest peak rate, the norm that gradients of transformers are clipped to, and the spread of new tokens and
# positions (as in ViT, arXiv 2010.11929, and DeiT, arXiv 2012.12877).
ADAMW_RATE, CLIPPED_NORM, TOKEN_SPREAD = 3e-3, 1.0, 0.02
# With n test images, accuracies up to chance + 2 standard errors cannot be told from guessing.
CHANCE_ERRORS = 2.0


class DivergenceError(PopstatsError):
    """A training that failed: its loss is not a number, or its network guesses. Recorded as a failed row."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a split."""

    accuracy: float  # percent
    loss: float  # mean cross-entropy (nats)
    n: int  # images behind it (shifts of one image count once)
    by_image: Tensor  # accuracy on each image, percent, shape (n,), where it was evaluated


def training_epochs(settings: TrainingSettings, macs: int, images: int) -> float:
    """Return the passes over `images` training images that the budget buys for a network of `macs`."""
    if settings.training_macs is None:
        return settings.epochs
    return images_seen(settings, macs, images) / images


def training_steps(settings: TrainingSettings, macs: int, images: int) -> int:
    """Return the number of steps that the budget buys, at least one; epochs leave out images that fill no batch."""
    batch = _batch_size(settings, images)
    if settings.training_macs is None:
        return max(1, round(settings.epochs * (images // batch)))
    return max(1, round(settings.training_macs / (PASSES_PER_STEP * macs * batch)))


def images_seen(settings: TrainingSettings, macs: int, images: int) -> int:
    """Return how many images the training goes through, each as often as it does."""
    return training_steps(settings, macs, images) * _batch_size(settings, images)


def _batch_size(settings: TrainingSettings, images: int) -> int:
    return min(settings.batch_size, images)


def learning_rates(settings: TrainingSettings, steps: int, peak: float | None = None) -> list[float]:
    """Return the learning rate of each step, shape (steps,)."""
    peak = settings.learning_rate if peak is None else peak

    def share(progress: float) -> float:
        if settings.schedule == "constant":
            return 1.0
        if progress < settings.warm_up:
            return progress / settings.warm_up
        if settings.schedule == "steps":
            return 0.1 ** sum(progress >= at for at in STEPS_AT)
        rest = (progress - settings.warm_up) / (1 - settings.warm_up)
        return 1 - rest if settings.schedule == "one-cycle" else 0.5 * (1 + math.cos(math.pi * rest))

    return [peak * share((step + 0.5) / steps) for step in range(steps)]


def peak_rate(network: nn.Module, settings: TrainingSettings) -> float:
    """Return the plan's learning rate; a rate that only SGD can take is lowered for transformers."""
    return min(settings.learning_rate, ADAMW_RATE) if is_transformer(network) else settings.learning_rate


def is_transformer(network: nn.Module) -> bool:
    """Return whether a network has attention and no batch norm: AdamW trains it, SGD hardly does."""
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    return not norms and bool(attention_modules(network))


def train(
    network: nn.Module,
    images: ImageSet,
    settings: TrainingSettings,
    *,
    macs: int,
    seed: int,
    device: torch.device,
) -> None:
    """Train `network` in place."""
    batch_size = _batch_size(settings, len(images.train))
    per_epoch = len(images.train) // batch_size
    steps = training_steps(settings, macs, len(images.train))
    rates = learning_rates(settings, steps, peak_rate(network, settings))
    optimizer = _optimizer(network, settings, device)
    network.to(memory_format=memory_format(device)).train()
    batches = _endless_batches(images, settings, batch_size, seed, device)
    for step, (rate, (batch, labels)) in enumerate(zip(rates, batches, strict=False), start=1):
        loss = _step(network, optimizer, batch, labels, rate, settings)
        # Reading the loss waits for the device: once per epoch is enough to stop a hopeless training early.
        if (step % per_epoch == 0 or step == steps) and not math.isfinite(loss.item()):
            raise DivergenceError(f"the loss is {loss.item()} after {step / per_epoch:.3g} epochs")


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    labels: Tensor,
    rate: float,
    settings: TrainingSettings,
) -> Tensor:
    """Move the weights by one batch; return its loss, still on the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        outputs = network(batch)
    loss = functional.cross_entropy(outputs.float(), labels, label_smoothing=settings.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if isinstance(optimizer, torch.optim.AdamW):
        nn.utils.clip_grad_norm_(network.parameters(), CLIPPED_NORM)
    optimizer.step()
    return loss.detach()


def _optimizer(network: nn.Module, settings: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW for transformers; no weight decay on norms, biases, tokens and positions."""
    transformer, fused = is_transformer(network), device.type in ("cpu", "cuda")
    loose = {id(p) for p in _loose_parameters(network)} if transformer else set()
    matrices = [p for p in network.parameters() if p.dim() > 1 and id(p) not in loose]
    others = [p for p in network.parameters() if p.dim() <= 1 or id(p) in loose]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if transformer:
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        fused=fused,
    )


def _loose_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """Yield what no layer multiplies by: class tokens, positions, tables of them, scales."""
    layers = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    for module in network.modules():
        if not isinstance(module, layers):
            yield from module.parameters(recurse=False)


def _endless_batches(
    images: ImageSet, settings: TrainingSettings, batch_size: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised, augmented batches for ever, each epoch in a new order; the last short batch is dropped."""
    split, steps = images.train, parse_augmentation(settings.augmentation)
    normalise = _normaliser(images, device)
    generator = torch.Generator(device).manual_seed(seed)
    order_generator = torch.Generator(split.images.device).manual_seed(seed)
    while True:
        order = torch.randperm(len(split), device=split.images.device, generator=order_generator)
        for chosen in torch.split(order[: len(order) // batch_size * batch_size], batch_size):
            batch = normalise(split.images.index_select(0, chosen))
            for augment in steps:
                batch = augment(batch, generator)
            labels = _moved(split.labels.index_select(0, chosen), device)
            yield batch.contiguous(memory_format=memory_format(device)), labels


def _normaliser(images: ImageSet, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what takes uint8 pixels to float32 on `device`, with mean 0 and standard deviation 1 per channel."""
    # Made once: a copy to a GPU waits for all that it has been given to do.
    mean = (torch.tensor(images.mean).view(1, -1, 1, 1) * 255).to(device)
    std = (torch.tensor(images.std).view(1, -1, 1, 1) * 255).to(device)
    return lambda pixels: (_moved(pixels, device).float() - mean) / std


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`, without waiting for it where it comes from the host."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@torch.inference_mode()
def evaluate(network: nn.Module, images: ImageSet, split: Split, *, device: torch.device) -> Evaluation:
    """Return accuracy and loss of `network` on a split of `images`, averaged over their test shifts."""
    network.eval()
    shift = images.test_shift
    views, normalise = (2 * shift + 1) ** 2, _normaliser(images, device)
    right, loss = [], torch.zeros((), device=device, dtype=torch.float64)
    for pixels, labels in split.batches(max(1, EVALUATION_BATCH[device.type] // views)):
        batch = shift_views(normalise(pixels), shift)  # padded after normalisation, as in training
        outputs = network(batch.contiguous(memory_format=memory_format(device))).float()
        targets = _moved(labels, device).repeat(views)
        right.append((outputs.argmax(1) == targets).reshape(views, -1).sum(0))
        loss += functional.cross_entropy(outputs, targets, reduction="sum").double()
    counts = torch.cat(right)
    total = views * len(split)
    return Evaluation(
        100 * int(counts.sum()) / total, loss.item() / total, len(split), 100 * counts.double() / views
    )


def check_learned(evaluation: Evaluation, classes: int) -> None:
    """Refuse a network that guesses."""
    chance = 1 / classes
    threshold = 100 * (chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / evaluation.n))
    if not math.isfinite(evaluation.loss):
        raise DivergenceError(f"the test loss is {evaluation.loss}")
    if evaluation.accuracy <= threshold:
        raise DivergenceError(
            f"the accuracy at the end, {evaluation.accuracy:.2f} %, is not above chance ({threshold:.2f} %)"
        )


def loss_gradients(network: nn.Module, images: ImageSet) -> None:
    """Leave the gradients of the loss on some training images in the network's parameters, for Taylor scores."""
    network.eval()
    normalise = _normaliser(images, torch.device("cpu"))
    sample = images.train.take(slice(TAYLOR_IMAGES))
    for pixels, labels in sample.batches(TAYLOR_BATCH):
        loss = functional.cross_entropy(network(normalise(pixels)), labels, reduction="sum")
        (loss / len(sample)).backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def recalibrate(network: nn.Module, images: ImageSet, *, device: torch.device) -> None:
    """Re-estimate the running statistics of batch norm in place, on training images as they are."""
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    # Every second, third, ...: a set that is sorted by class stays balanced.
    sample = images.train.images[:: math.ceil(len(images.train) / RECALIBRATION_IMAGES)]
    batches = math.ceil(len(sample) / EVALUATION_BATCH[device.type])
    # Each batch counts the same, so they are of equal size, and each is spread over the whole sample.
    normalise = _normaliser(images, device)
    for first in range(batches):
        for norm in norms:
            # The mean over batches; left to torch (momentum None), each layer would wait for a GPU to count them.
            norm.momentum = 1 / (first + 1)
        network(normalise(sample[first::batches]).contiguous(memory_format=memory_format(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def fresh_weights(network: nn.Module, seed: int) -> None:
    """Draw new weights in place, scaled to the network's own widths; vectors of no standard layer are kept."""
    # Convolutions as in He et al. 2015 (arXiv 1502.01852), tokens and positions as in ViT (arXiv 2010.11929).
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for loose in _loose_parameters(network) if is_transformer(network) else ():
            if loose.dim() > 1:
                nn.init.normal_(loose, std=TOKEN_SPREAD)
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                module._reset_parameters()
            elif callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()  # type: ignore[operator]
            if isinstance(module, nn.modules.conv._ConvNd):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
