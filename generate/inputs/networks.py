"""Networks by name: CIFAR ResNets, a small vision transformer, torchvision's classifiers and the user's own factories.

The CIFAR networks are those of "Deep Residual Learning" (arXiv 1512.03385), section 4.2, with 1x1 convolutions
as shortcuts wherever the shape changes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import random
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from generate.inputs.images import imported_factory
from generate.plan import NetworkPlan
from popstats.errors import PlanError

# Depths offered; each is 6 n + 2 for n residual blocks per stage.
CIFAR_DEPTHS: tuple[int, ...] = (8, 14, 20, 32, 56, 110)
# Channels of the first stage in the paper; the later two stages double it.
CIFAR_FIRST_WIDTH = 16

# Of the small vision transformer: channels, and those of a head; pixels along a patch; blocks.
VIT_WIDTH, VIT_HEAD, VIT_PATCH, VIT_DEPTH = 48, 8, 2, 4
# A larger factor is a number of channels by mistake.
LARGEST_FACTOR = 4

# Two images: batch norm can be trained on them, and class scores show whether they have one row for each.
TRACED_IMAGES = 2
# What the code of a network raises when it cannot do something.
NETWORK_ERRORS = (
    RuntimeError,
    ValueError,
    LookupError,
    AssertionError,
    TypeError,
    AttributeError,
    ArithmeticError,
)

_CIFAR_PREFIX = "cifar_resnet"
_VIT = "digits_vit"
_WITH_WIDTHS = "mobilenet_"  # torchvision's, by its own option
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output for `features`, shape (batch, channels, height, width)."""
        # In place: activations of small images are bound by memory traffic, not by arithmetic.
        inner = torch.relu_(self.bn1(self.conv1(features)))
        return torch.relu_(self.bn2(self.conv2(inner)).add_(self.shortcut(features)))


class CifarResNet(nn.Module):
    """Residual network of three stages for small images."""

    def __init__(self, depth: int, classes: int, channels: int = 3, width: int = CIFAR_FIRST_WIDTH) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage1 = _stage(width, width, blocks, stride=1)
        self.stage2 = _stage(width, 2 * width, blocks, stride=2)
        self.stage3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores, shape (batch, classes), for `images`, shape (batch, channels, height, width)."""
        features = torch.relu_(self.bn1(self.conv1(images)))
        features = self.stage3(self.stage2(self.stage1(features)))
        return cast(Tensor, self.classifier(self.pool(features).flatten(1)))


class DigitsViT(nn.Module):
    """Vision transformer for small images: pre-norm blocks and learned positions (arXiv 2010.11929), mean over tokens."""

    def __init__(self, classes: int, input_shape: tuple[int, int, int], width: int = VIT_WIDTH) -> None:
        super().__init__()
        channels, height, wide = input_shape
        self.embedding = nn.Conv2d(channels, width, VIT_PATCH, stride=VIT_PATCH)
        self.positions = nn.Parameter(
            0.02 * torch.randn(1, (height // VIT_PATCH) * (wide // VIT_PATCH), width)
        )
        self.blocks = nn.Sequential(*(TransformerBlock(width) for _ in range(VIT_DEPTH)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits, shape (batch, classes), for images of shape (batch, channels, height, width)."""
        tokens = self.embedding(images).flatten(2).transpose(1, 2) + self.positions
        return cast(Tensor, self.classifier(self.norm(self.blocks(tokens)).mean(1)))


class TransformerBlock(nn.Module):
    """Self-attention and a perceptron of one hidden layer, each behind a norm and beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, width // VIT_HEAD, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the block's output for `tokens`, shape (batch, tokens, width)."""
        read = self.norm1(tokens)
        tokens = tokens + self.attention(read, read, read, need_weights=False)[0]
        return tokens + cast(Tensor, self.mlp(self.norm2(tokens)))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(ResidualBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def planned_network(plan: NetworkPlan, *, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """Return a freshly initialised network as a plan's [network] table describes it, checked for training."""
    name = plan.name
    network = build_network(name, classes=classes, input_shape=input_shape, width=plan.width, stem=plan.stem)
    was_training = network.training
    scores = class_scores(network.eval(), input_shape)  # lazy layers are shaped here
    network.train(was_training)
    if scores.shape[1] != classes:
        raise PlanError(
            f"network {name!r}: expected {classes} class scores for each image, one per class, got {scores.shape[1]}."
        )
    kinds = {parameter.dtype for parameter in network.parameters()}
    if kinds != {torch.float32}:
        found = ", ".join(sorted(str(kind) for kind in kinds)) or "none"
        raise PlanError(
            f"network {name!r}: expected parameters of torch.float32 (call .float()), got {found}."
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise PlanError(
            f"network {name!r}: all parameters are frozen, so nothing can be trained; call .requires_grad_(True)."
        )
    return network


def class_scores(network: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Return the class scores of a few images of noise, shape (TRACED_IMAGES, classes); refuse anything else."""
    name, shape = type(network).__name__, "x".join(map(str, input_shape))
    kind = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    mode = " in training mode" if network.training else ""
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters())
    grad_mode = torch.no_grad() if lazy else torch.inference_mode()
    try:
        with fixed_chance(), grad_mode, without_fast_attention():
            output = network(torch.randn(TRACED_IMAGES, *input_shape, dtype=kind))
    except NETWORK_ERRORS as error:
        raise PlanError(f"network {name} cannot take images of {shape}{mode}: {first_line(error)}") from error
    if not isinstance(output, Tensor):
        raise PlanError(
            f"network {name}{mode}: expected one tensor of class scores, got {type(output).__name__}; "
            "build it without auxiliary outputs."
        )
    if output.dim() != 2 or len(output) != TRACED_IMAGES:
        raise PlanError(
            f"network {name}{mode}: expected class scores of shape (images, classes), got {tuple(output.shape)} "
            f"for {TRACED_IMAGES} images."
        )
    return output


@contextlib.contextmanager
def fixed_chance() -> Iterator[None]:
    """Let every pass draw the same numbers, from torch and from Python."""
    before = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            random.seed(1)
            yield
    finally:
        random.setstate(before)


@contextlib.contextmanager
def without_fast_attention() -> Iterator[None]:
    """Switch off the fused kernels of nn.MultiheadAttention, whose parts neither labels nor counters see."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def first_line(error: BaseException) -> str:
    """Return an error's first line, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def build_network(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    width: float | None = None,
    stem: str = "standard",
) -> nn.Module:
    """Return a freshly initialised network; `width` is a factor of its usual channels, 1 where it is None."""
    if stem != "standard" and (":" in name or name.startswith((_CIFAR_PREFIX, _VIT))):
        raise PlanError(
            f"network {name!r} brings its own stem; stem = {stem!r} is for torchvision's ResNets."
        )
    if ":" in name:
        return _from_factory(name, classes, input_shape, width)
    if name.startswith(_CIFAR_PREFIX):
        depth = name.removeprefix(_CIFAR_PREFIX)
        if depth not in map(str, CIFAR_DEPTHS):
            legal = ", ".join(f"{_CIFAR_PREFIX}{known}" for known in CIFAR_DEPTHS)
            raise PlanError(f"network {name!r} is unknown; the CIFAR networks are {legal}.")
        return CifarResNet(int(depth), classes, input_shape[0], _channels(name, CIFAR_FIRST_WIDTH, width))
    if name == _VIT:
        if any(pixels % VIT_PATCH for pixels in input_shape[1:]):
            raise PlanError(
                f"network {_VIT!r} takes images whose height and width are multiples of {VIT_PATCH}, got {input_shape}."
            )
        return DigitsViT(classes, input_shape, _channels(name, VIT_WIDTH, width, VIT_HEAD))
    network = _from_torchvision(name, classes, input_shape, width)
    return network if stem == "standard" else _with_cifar_stem(network, name)


def parse_input_shape(text: str) -> tuple[int, int, int]:
    """Return (channels, height, width) from text such as ``3x224x224``."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise PlanError(f"input size: expected CHANNELSxHEIGHTxWIDTH such as 3x224x224, got {text!r}.")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _channels(name: str, usual: int, width: float | None, multiple: int = 1) -> int:
    """Return a factor of the usual channels, if the network can have as many."""
    channels = usual * (1.0 if width is None else width)
    if not 0 < channels <= LARGEST_FACTOR * usual or channels % multiple:
        raise PlanError(
            f"network {name!r}: expected `width` to be a factor of its {usual} channels, at most {LARGEST_FACTOR}, that "
            f"leaves {f'a multiple of {multiple}' if multiple > 1 else 'a whole number'} of them; got {width:g}."
        )
    return int(channels)


def _from_torchvision(
    name: str, classes: int, input_shape: tuple[int, int, int], width: float | None
) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    known = cast(list[str], models.list_models(module=models))
    if name not in known:
        raise PlanError(
            f"network {name!r} is unknown: expected {_CIFAR_PREFIX}DEPTH, {_VIT}, module:factory or one of "
            f"torchvision's classifiers ({', '.join(known)})."
        )
    if input_shape[0] != 3:
        raise PlanError(f"network {name!r} takes images of 3 channels, got {input_shape[0]}.")
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if width is not None and not name.startswith(_WITH_WIDTHS):
        raise PlanError(
            f"network {name!r} has no `width` option (got {width:g}); {_CIFAR_PREFIX}*, {_VIT}, mobilenet_* and "
            "module:factory may have one."
        )
    options |= {} if width is None else {"width_mult": width}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": True}
    return cast(nn.Module, models.get_model(name, **options))


def _with_cifar_stem(network: nn.Module, name: str) -> nn.Module:
    """Replace the first convolution by a 3x3 one with stride 1, and the pooling behind it by nothing, in place."""
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        raise PlanError(
            f"network {name!r} has no 7x7 convolution and pooling to replace: stem = 'cifar' is for torchvision's "
            "resnet*, resnext* and wide_resnet*."
        )
    smaller = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
    _initialise(smaller)
    network.conv1, network.maxpool = smaller, nn.Identity()
    return network


def _from_factory(name: str, classes: int, shape: tuple[int, int, int], width: float | None) -> nn.Module:
    # What its parameters can be filled with, by their usual names.
    available: dict[str, Any] = {
        **dict.fromkeys(("classes", "num_classes", "n_classes", "num_labels"), classes),
        **dict.fromkeys(("in_channels", "in_chans", "input_channels"), shape[0]),
        **dict.fromkeys(("image_size", "img_size"), shape[1]),
        **({} if width is None else {"width": int(width) if width == int(width) else width}),
        "input_shape": shape,
    }
    factory = imported_factory(name, f"network {name!r}")
    parameters = inspect.signature(factory).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in available]
    if missing or any(p.kind is p.POSITIONAL_ONLY for p in named):
        raise PlanError(
            f"network {name!r}: the factory needs {', '.join(missing or [p.name for p in named])}, which a plan cannot "
            f"give; it can give {', '.join(available)}. Give the others defaults."
        )
    try:
        network = factory(**{p.name: available[p.name] for p in named if p.name in available})
    except NETWORK_ERRORS as error:
        raise PlanError(f"network {name!r}: its factory failed ({first_line(error)}).") from error
    if not isinstance(network, nn.Module):
        raise PlanError(
            f"network {name!r}: expected the factory to return an nn.Module, got {type(network)}."
        )
    return network
