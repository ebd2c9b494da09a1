"""Several trainings by one of several ways to use a GPU, alone in its process; what `test_gpu.py` starts and compares.

    python gpu_candidates.py '{"way": "graph", "network": "cifar_resnet20", "recipes": [[16, 9, ...], ...], ...}'

"eager" is the product. "graph" captures the whole step of each cut network as a CUDA graph. "masked" captures one step at
full width, in which masks silence what a recipe drops, for all recipes. "streams" has the graphs of several cut networks
run side by side. None of them goes into the product before it has won here.
Prints one line of JSON.
"""

import json
import math
import sys
import time

import torch
from torch import Tensor, nn
from training_loops import make_network, read_images

from generate.inputs.networks import build_network
from generate.plan import TrainingSettings
from generate.prune.cut import choose_filters
from generate.prune.groups import find_groups
from generate.train.device import memory_format, settle_on_device
from generate.train.loop import (
    _endless_batches,
    _optimizer,
    _step,
    evaluate,
    fresh_weights,
    learning_rates,
    train,
)

# The documentation of CUDA graphs asks for a few; torch's own helpers take three.
WARM_UP_STEPS = 3
STREAMS = 4


class StaticStep:
    """One training step whose every tensor stays where it is: batch, labels and rate are copied in before it runs.

    With `capture`, it is a CUDA graph: launched as one, without Python or the host between its kernels.
    """

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, batch: Tensor, labels: Tensor, *, capture
    ):
        self.network = network.to(memory_format=memory_format(batch.device)).train()
        self.settings = settings
        self.batch, self.labels = batch.clone(), labels.clone()
        # A number would be frozen into the graph; so would anything random, which is therefore drawn outside.
        self.rate = torch.zeros((), device=batch.device)
        self.optimizer = _optimizer(network, settings, batch.device)
        start = {name: value.clone() for name, value in network.state_dict().items()}
        self._warm_up()
        self.graph = self._capture() if capture else None
        self.restart(start)

    def _step(self) -> Tensor:
        return _step(self.network, self.optimizer, self.batch, self.labels, self.rate, self.settings)

    def _warm_up(self) -> None:
        """Let cuDNN choose and the optimizer make its buffers, which must not happen inside a capture."""
        if self.batch.device.type == "cpu":
            self.loss = self._step()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # None, so that the gradients of the capture lie in the graph's own memory.
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self.loss = self._step()
        return graph

    @torch.no_grad()
    def restart(self, state: dict[str, Tensor]) -> None:
        """Put weights and statistics back to `state` and momentum to zero, in place."""
        for name, value in self.network.state_dict().items():
            value.copy_(state[name])
        for buffers in self.optimizer.state.values():
            if buffers.get("momentum_buffer") is not None:
                buffers["momentum_buffer"].zero_()

    def __call__(self, batch: Tensor, labels: Tensor, rate: float) -> None:
        self.batch.copy_(batch)
        self.labels.copy_(labels)
        self.rate.fill_(rate)
        if self.graph is None:
            self.loss = self._step()
        else:
            self.graph.replay()


class Masks:
    """What silences filters of a network at full width, at fixed addresses: one mask a group, behind each batch norm."""

    def __init__(self, network: nn.Module, groups, device: torch.device) -> None:
        self.groups = groups
        self.masks = {group.name: torch.ones(group.width, device=device) for group in groups}
        for group in groups:
            for member in group.members:
                layer = network.get_submodule(member.layer)
                if isinstance(layer, nn.BatchNorm2d):
                    layer.register_forward_hook(self._hook(group, member, device))

    def _hook(self, group, member, device):
        filters = torch.empty(member.channels.size, dtype=torch.int64)
        filters[torch.from_numpy(member.channels.ravel())] = torch.arange(group.width).repeat_interleave(
            member.multiplicity
        )
        filters, mask = filters.to(device), self.masks[group.name]
        return lambda module, taken, given: given * mask[filters].view(1, -1, 1, 1)

    def keep(self, kept) -> None:
        """Silence every filter that is not in `kept`."""
        for name, mask in self.masks.items():
            chosen = torch.zeros_like(mask)
            chosen[torch.as_tensor(kept[name], device=mask.device)] = 1
            mask.copy_(chosen)


def train_statically(step: StaticStep, images, settings, seed, device) -> None:
    """As `generate.train.loop.train`, by a static step."""
    per_epoch = len(images.train) // settings.batch_size
    rates = learning_rates(settings, round(settings.epochs * per_epoch))
    batches = _endless_batches(images, settings, settings.batch_size, seed, device)
    for number, (rate, (batch, labels)) in enumerate(zip(rates, batches, strict=False), start=1):
        step(batch, labels, rate)
        if number % per_epoch == 0:
            assert math.isfinite(step.loss.item())


def static_step(network, images, settings, device) -> StaticStep:
    batch, labels = next(_endless_batches(images, settings, settings.batch_size, 0, device))
    return StaticStep(network, settings, batch, labels, capture=device.type == "cuda")


def cut_network(task, widths, images, device):
    return make_network(task | {"widths": widths}, images).to(device)


def eager(task, images, settings, device):
    for seed, widths in enumerate(task["recipes"]):
        network = cut_network(task, widths, images, device)
        train(network, images, settings, macs=1, seed=seed, device=device)
        yield network


def graph(task, images, settings, device):
    for seed, widths in enumerate(task["recipes"]):
        network = cut_network(task, widths, images, device)
        train_statically(static_step(network, images, settings, device), images, settings, seed, device)
        yield network


def masked(task, images, settings, device):
    network = build_network(task["network"], classes=images.classes, input_shape=images.input_shape)
    groups = find_groups(network, images.input_shape)
    fresh_weights(network, task["seed"])
    network.to(device)
    masks = Masks(network, groups, device)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    step = static_step(network, images, settings, device)
    scores = {group.name: torch.ones(group.width) for group in groups}
    for seed, widths in enumerate(task["recipes"]):
        masks.keep(choose_filters(scores, groups, widths))
        step.restart(start)
        network.train()
        train_statically(step, images, settings, seed, device)
        yield network


def streams(task, images, settings, device):
    """Recipes in bunches: each has its own stream, on which its batches are made and its graph runs."""
    per_epoch = len(images.train) // settings.batch_size
    rates = learning_rates(settings, round(settings.epochs * per_epoch))
    for first in range(0, len(task["recipes"]), STREAMS):
        bunch = []
        for seed, widths in list(enumerate(task["recipes"]))[first : first + STREAMS]:
            network = cut_network(task, widths, images, device)
            batches = _endless_batches(images, settings, settings.batch_size, seed, device)
            bunch.append((torch.cuda.Stream(), static_step(network, images, settings, device), batches))
        torch.cuda.synchronize()
        for rate in rates:
            for stream, step, batches in bunch:
                with torch.cuda.stream(stream):
                    step(*next(batches), rate)
        torch.cuda.synchronize()
        yield from (step.network for _, step, _ in bunch)


WAYS = {"eager": eager, "graph": graph, "masked": masked, "streams": streams}


def main(task):
    device = torch.device(task["device"])
    settle_on_device(device)
    images = read_images(task["images"]).to(device)
    settings = TrainingSettings(**task["settings"])
    started, accuracies = time.perf_counter(), []
    for network in WAYS[task["way"]](task, images, settings, device):
        accuracies.append(evaluate(network, images, images.test, device=device).accuracy)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "trainings": len(accuracies), "accuracies": accuracies}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
