"""Networks by name: CIFAR-style residual networks, torchvision's classifiers and the user's own factories.

The CIFAR networks are those of "Deep Residual Learning" (arXiv 1512.03385), section 4.2, with 1x1 convolutions
as shortcuts wherever the shape changes.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from generate.inputs.batch_norm import normalise
from generate.plan import NetworkPlan
from popstats.errors import PlanError

CIFAR_DEPTHS: tuple[int, ...] = (8, 20, 32, 56, 110)
"""Depths offered; each is 6 n + 2 for n residual blocks a stage."""

CIFAR_FIRST_WIDTH = 16
"""Channels of the first stage in the paper; the later two stages double it."""

_CIFAR_PREFIX = "cifar_resnet"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output for `features`, shape (batch, channels, height, width)."""
        inner = normalise(self.bn1, self.conv1(features), rectify=True)
        return normalise(self.bn2, self.conv2(inner), self.shortcut(features), rectify=True)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    projection = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(channels_out))


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
        features = normalise(self.bn1, self.conv1(images), rectify=True)
        features = self.stage3(self.stage2(self.stage1(features)))
        return cast(Tensor, self.classifier(self.pool(features).flatten(1)))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(ResidualBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def planned_network(plan: NetworkPlan, *, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """Return a freshly initialised network as a plan's [network] table asks for it."""
    return build_network(
        plan.name, classes=classes, input_shape=input_shape, width=plan.width, stem=plan.stem
    )


def build_network(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    width: int | None = None,
    stem: str = "standard",
) -> nn.Module:
    """Return a freshly initialised network."""
    if stem != "standard" and (":" in name or name.startswith(_CIFAR_PREFIX)):
        raise PlanError(
            f"network {name!r} has a stem of its own; stem = {stem!r} is for torchvision's ResNets."
        )
    if ":" in name:
        return _from_factory(name, {"classes": classes, "input_shape": input_shape, "width": width})
    if name.startswith(_CIFAR_PREFIX):
        return _cifar(name, classes, input_shape, width)
    if width is not None:
        raise PlanError(f"network {name!r} has no `width` option (got {width}); only {_CIFAR_PREFIX}* have.")
    network = _from_torchvision(name, classes, input_shape)
    return network if stem == "standard" else _with_cifar_stem(network, name)


def parse_input_shape(text: str) -> tuple[int, int, int]:
    """Return (channels, height, width) from text such as ``3x224x224``."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise PlanError(f"input size: expected CHANNELSxHEIGHTxWIDTH such as 3x224x224, got {text!r}.")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _cifar(name: str, classes: int, input_shape: tuple[int, int, int], width: int | None) -> nn.Module:
    depth = name.removeprefix(_CIFAR_PREFIX)
    if depth not in {str(known) for known in CIFAR_DEPTHS}:
        legal = ", ".join(f"{_CIFAR_PREFIX}{known}" for known in CIFAR_DEPTHS)
        raise PlanError(f"network {name!r} is unknown; the CIFAR networks are {legal}.")
    if width is not None and width < 1:
        raise PlanError(f"network {name!r}: `width` must be at least 1, got {width}.")
    return CifarResNet(int(depth), classes, input_shape[0], width or CIFAR_FIRST_WIDTH)


def _from_torchvision(name: str, classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    known = cast(list[str], models.list_models(module=models))
    if name not in known:
        raise PlanError(
            f"network {name!r} is unknown: expected {_CIFAR_PREFIX}DEPTH, module:factory or one of "
            f"torchvision's classifiers ({', '.join(known)})."
        )
    if input_shape[0] != 3:
        raise PlanError(f"network {name!r} takes images of 3 channels, got {input_shape[0]}.")
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
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


def _from_factory(name: str, available: dict[str, Any]) -> nn.Module:
    factory = _find_factory(name)
    accepted = inspect.signature(factory).parameters
    network = factory(**{key: value for key, value in available.items() if key in accepted})
    if not isinstance(network, nn.Module):
        raise PlanError(
            f"network {name!r}: expected the factory to return an nn.Module, got {type(network)}."
        )
    return network


def _find_factory(name: str) -> Callable[..., Any]:
    module_name, _, factory_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(
            f"network {name!r}: expected module:factory that can be imported from here; {error}."
        ) from error
    return cast(Callable[..., Any], factory)
