"""The proof of a cut: on values, it equals the original with the same filters silenced, and costs what was predicted.

Silenced means that nothing reads the filters any more: what they hold is no number, the columns of all layers that take
them in are zero, and norms and sums over channels run over the numbers that are left. The cut cannot compute anything
of removed filters, so where both agree on random weights, the right columns went. All weights, scales and statistics are
drawn anew: fresh networks are full of ones and zeros, on which a wrong cut shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from generate.inputs.networks import NETWORK_ERRORS, first_line, fixed_chance, without_fast_attention
from generate.prune.attention import at
from generate.prune.cut import cut, gone_channels
from generate.prune.dependency_graph import Group, IntArray, copy_network, with_values
from generate.prune.operations import SUMS, Convolution, SkippedProducts, channel_count, is_depthwise
from popstats.errors import PlanError

Costs = Callable[[IntArray], tuple[IntArray, IntArray]]
# Above this many multiply-accumulates a proof takes single precision at first, fewer images and fewer cuts.
LARGE = 50_000_000
# And above this many one cut, in which every group loses filters: the proof of ViT-B/16 takes 5 seconds of CPU.
HUGE = 5_000_000_000
CHANCE = {"rand", "rand_like", "randn", "randn_like", "normal", "uniform", "exponential"}
OVER_CHANNELS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
NORMS = ("layer_norm", "rms_norm", "group_norm")
LEAST_NORMALISED = 4
SMALLEST = 1e-9  # variance of a channel that tells images apart
LEAST_SPREAD = 1e-6  # of a layer's outputs, relative to the largest, that is no rounding
# Rounding leaves 1e-3 at most in most deep networks (2e-6 in double precision); a wrong column moves the output by percents.
TOLERANCE = {torch.float32: 5e-3, torch.float64: 1e-5}


def verify_cuts(
    network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group], predict: Costs
) -> None:
    """Make a few random cuts; refuse groups whose cut differs from the silenced original or from its predicted costs."""
    proof = _Proof(network, input_shape, groups, predict)
    for recipe in range(proof.recipes):
        reason = proof.fault(groups, recipe)
        if reason and proof.goes_double():  # deep networks of few values can turn rounding into anything
            reason = proof.fault(groups, recipe)
        if reason:
            culprits = dict.fromkeys(group.layers[0] for group in proof.culprits(groups, recipe))
            names = ", ".join(map(repr, culprits))
            raise PlanError(
                f"network {type(network).__name__} cannot be cut at {names}: {reason}. "
                f"Protect what cannot be cut with keep = [{names}]."
            )


def counted_macs(copy: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-accumulates of one input by torch's own counter, in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode  # takes half a second, which workers can spare

    copy.eval().requires_grad_(False)  # the counter cannot follow parameters that are passed to modules
    with (
        SkippedProducts(),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        without_fast_attention(),
    ):
        copy(one_input(copy, input_shape))
    return int(counter.get_total_flops()) // 2


def one_input(network: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Return a batch of one input, of the network's own type."""
    kind = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return torch.zeros(1, *input_shape, dtype=kind)


class _Proof:
    """A network with random values, and what its cuts are compared with."""

    def __init__(
        self, network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group], predict: Costs
    ) -> None:
        self._shape, self._groups, self._predict = input_shape, tuple(groups), predict
        self._normalised = _normalised(network, groups)
        macs = predict(np.array([group.width for group in groups]))[0][0]
        self._large = macs > LARGE
        self.recipes, images = (2 - int(macs > HUGE), 2) if self._large else (3, 3)
        self._original = with_values(network)  # of its own types: in single precision an LSTM is one kernel
        self._network, self._images = with_values(network).float(), _images(images, input_shape)
        if not self._large:
            self.goes_double()

    def goes_double(self) -> bool:
        """Go on in double precision; return False where that is so already, or the network makes single precision."""
        if self._images.dtype == torch.float64:
            return False
        try:
            self._output(copy_network(self._network).double().eval(), self._images.double())
        except NETWORK_ERRORS:
            return False
        self._network, self._images = self._network.double(), self._images.double()
        return True

    def fault(self, pruned: Sequence[Group], recipe: int) -> str:
        """Return what is wrong with a random cut of some groups; "" if nothing is."""
        kept = _random_recipe(self._groups, {g.name for g in pruned}, self._normalised, recipe)
        whole = copy_network(self._network).eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe)
            _randomise(whole)
            silence(whole, self._groups, kept)
            try:
                with _Liven():
                    lively = self._output(whole, self._images)
                small = cut(whole, self._groups, kept)
                for training in (False, True):
                    found = self._output(small.train(training), self._images)
                    if self._large and not training and _agree(found, lively):
                        continue  # spares a pass; where weights serve elsewhere too, the pass decides
                    expected = self._output(whole.train(training), self._images)
                    if not _agree(found, expected):
                        mode = "training" if training else "evaluation"
                        return f"in {mode} mode it does not compute what the original computes without these filters"
                return self._wrong_costs(kept)
            except NETWORK_ERRORS as error:
                return f"it does not run any more ({first_line(error)})"

    def culprits(self, groups: Sequence[Group], recipe: int) -> list[Group]:
        """Return the groups that cannot be cut, found by halving; all where only several together fail."""
        if len(groups) == 1:
            return list(groups)
        halves = groups[: len(groups) // 2], groups[len(groups) // 2 :]
        found = [g for half in halves if self.fault(half, recipe) for g in self.culprits(half, recipe)]
        return found or list(groups)

    def _output(self, network: nn.Module, images: Tensor) -> Tensor:
        with fixed_chance(), torch.inference_mode(), without_fast_attention(), _Silence():
            output: Tensor = network(images)
        return output

    def _wrong_costs(self, kept: Mapping[str, IntArray]) -> str:
        macs, params = self._predict(np.array([len(kept[group.name]) for group in self._groups]))
        small = cut(self._original, self._groups, kept)
        counted = counted_macs(small, self._shape), sum(p.numel() for p in small.parameters())
        if counted == (macs[0], params[0]):
            return ""
        return f"it has {counted[0]} MACs and {counted[1]} parameters, but {macs[0]} and {params[0]} were predicted"


def _images(count: int, shape: tuple[int, ...]) -> Tensor:
    """Return noise on a different background for each image, which pooling does not average away."""
    generator = torch.Generator().manual_seed(0)
    ground = torch.randn(count, shape[0], *[1] * (len(shape) - 1), generator=generator)
    return ground + torch.randn(count, *shape, generator=generator)


def _agree(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or not torch.isfinite(expected).all():
        return False
    scale = max(float(expected.abs().max()), float(found.abs().max()))
    return bool((found - expected).abs().max() <= TOLERANCE[expected.dtype] * scale)


def _normalised(network: nn.Module, groups: Sequence[Group]) -> set[str]:
    """Return the names of groups over whose channels a layer takes statistics: of one channel there are none."""
    layers = {name for name, module in network.named_modules() if isinstance(module, OVER_CHANNELS)}
    return {group.name for group in groups if any(member.layer in layers for member in group.members)}


def _random_recipe(
    groups: Sequence[Group], pruned: set[str], normalised: set[str], seed: int
) -> dict[str, IntArray]:
    """Return the filters kept: one of each block, all but one, or a random number, at random places."""
    rng = np.random.default_rng(seed)
    kept = {}
    for group in groups:
        most = group.width // group.step
        least = min(LEAST_NORMALISED, most - 1) if group.name in normalised else 1
        quota = rng.choice([least, most - 1, rng.integers(least, most)]) if group.name in pruned else most
        parts = [rng.permutation(np.flatnonzero(group.blocks == b))[:quota] for b in range(group.step)]
        kept[group.name] = np.sort(np.concatenate(parts))
    return kept


def _randomise(network: nn.Module) -> None:
    """Draw values that hide nothing: none is one or zero."""
    with torch.no_grad():
        for held in [*network.parameters(), *network.buffers()]:
            if held.is_floating_point() and held.dim() > 1:
                held.normal_(std=held[0].numel() ** -0.5)
            elif held.is_floating_point() and held.numel() > 1:
                held.uniform_(0.5, 1.5)


@torch.no_grad()
def silence(network: nn.Module, groups: Sequence[Group], kept: Mapping[str, IntArray]) -> None:
    """Let filters that are not kept hold no numbers, and no layer read them, in place."""
    for member, gone in gone_channels(groups, kept):
        layer, channels = at(network, member.layer), torch.from_numpy(gone)
        if isinstance(layer, Tensor):
            layer.index_fill_(member.axis, channels, torch.nan)
        elif member.side == "in":
            _fill(layer, channels, 0.0, reads=True)
        elif isinstance(layer, nn.Linear | Convolution):
            _fill(layer, channels, torch.nan, reads=is_depthwise(layer))
            if layer.bias is not None:
                layer.bias[channels] = torch.nan
        elif member.side == "out":
            count = channel_count(layer)
            for held in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
                if held.shape == (count,):
                    held[channels] = torch.nan


def _fill(layer: nn.Module, channels: Tensor, value: float, reads: bool) -> None:
    """Fill what a layer's weight holds for channels that it reads, or makes."""
    weight = cast(Tensor, layer.weight)
    transposed = getattr(layer, "transposed", False)
    if is_depthwise(layer):
        rows = channels // (weight.shape[1] if transposed else 1)
        weight[rows] = value
    elif reads == transposed:
        weight[channels] = value
    else:
        blocks = weight.reshape(getattr(layer, "groups", 1), -1, *weight.shape[1:])
        blocks[channels // weight.shape[1], :, channels % weight.shape[1]] = value


class _Liven(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Scales weights and sets statistics while images pass, so that no signal dies: what is dead would hide a fault."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        held = args[1] if len(args) > 1 else None
        if isinstance(held, nn.Parameter) and id(held) not in self._seen and args[0].numel():
            self._seen.add(id(held))
            if name == "linear" or (name.startswith("conv") and "transpose" not in name):
                bias = args[2] if len(args) > 2 else None
                return self._standardise(func(*args, **(kwargs or {})), name, held, bias)
            if name == "batch_norm" and args[3] is not None:
                values = args[0].movedim(1, 0).flatten(1)
                spread = values.std(1, correction=0)
                args[3].mul_(spread).add_(values.mean(1) - spread)
                args[4].mul_(spread**2 + SMALLEST)
        return func(*args, **(kwargs or {}))

    def _standardise(self, made: Tensor, name: str, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what a layer makes once its weights are scaled, which happens in place."""
        axis = made.dim() - 1 if name == "linear" else made.dim() - weight.dim() + 1
        channels = made.movedim(axis, 0)
        spread = channels.flatten(1).std(1, correction=0)
        most, largest = (float(values.nan_to_num(nan=0.0).abs().max()) for values in (spread, made))
        if most <= LEAST_SPREAD * largest:  # the same for every image: rounding would grow
            return made
        spread = spread.clamp(min=0.1 * most)
        weight.div_(spread.reshape(-1, *[1] * (weight.dim() - 1)))
        each = (-1, *[1] * (made.dim() - 1))
        if bias is not None:
            now = bias
            if isinstance(bias, nn.Parameter) and id(bias) not in self._seen:
                self._seen.add(id(bias))
                now = (bias - channels.flatten(1).mean(1)) / spread + 0.5 * torch.randn_like(bias)
            channels = channels - (bias - now * spread).reshape(each)
            bias.copy_(now)
        return (channels / spread.reshape(each)).movedim(0, axis)


class _Silence(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets layers, norms and sums pass by what is no number, and turns chance off: dropout passes everything."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__.rstrip("_"), kwargs or {}
        if name == "linear" or name.startswith("conv"):  # a number shows columns that are not zero
            return func(args[0].nan_to_num(nan=1.0), *args[1:], **kwargs)
        if name in NORMS or name in SUMS:
            found = _left(args[0], _over(func, name, args, kwargs))
            if found is not None:
                return _of_the_rest(func, name, args, kwargs, *found)
        if name == "scaled_dot_product_attention" and len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        if name.endswith("dropout"):
            return args[0]
        result = func(*args, **kwargs)
        if name == "bernoulli":
            return result.fill_(1)
        return result.fill_(0.5) if name in CHANCE else result


def _over(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[int]:
    """Return the dimensions over which a norm or sum runs."""
    if name == "group_norm":
        return [] if args[1] > 1 else [1]  # of several groups, whole ones go
    if name in NORMS:
        return [args[0].dim() - 1]
    named = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
    over = named.get("dim")
    return [over] if isinstance(over, int) else over or list(range(args[0].dim()))


def _left(images: Tensor, dimensions: Sequence[int]) -> tuple[int, Tensor] | None:
    """Return along which of some dimensions, and where, all are numbers; None where that is so everywhere or nowhere."""
    missing = images.isnan()
    for axis in dimensions if missing.any() else ():
        gone = missing.movedim(axis, 0).flatten(1).any(1)  # what pads places with zeros leaves some numbers
        if not gone.all():
            return axis, (~gone).nonzero()[:, 0]
    return None


def _of_the_rest(
    func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], axis: int, stay: Tensor
) -> Any:
    """Return what an operation makes of the numbers; what has a place for each has none for the others."""
    images, rest = args[0], list(args[1:])
    if name in NORMS:
        rest = [held[stay] if isinstance(held, Tensor) else held for held in rest]
        rest[0] = rest[0] if name == "group_norm" else [len(stay)]
    result = func(images.index_select(axis, stay), *rest, **kwargs)
    if name not in NORMS:
        return result
    return torch.full_like(images, torch.nan).index_copy(axis, stay, result)
