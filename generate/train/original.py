"""The original network: trained here, taken from torchvision or read from a file; measured and named by its weights."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from generate.inputs.images import ImageSet
from generate.inputs.networks import first_line, planned_network
from generate.plan import Plan
from generate.train.device import memory_format
from generate.train.loop import check_learned, evaluate, fresh_weights, train, training_epochs
from popstats.errors import PlanError

# torchvision's weights of these two expect its own rescaling of the input, which is no part of the network here.
RESCALES_ITS_INPUT = ("googlenet", "inception_v3")

# What small networks reach with common training on all images of a set (percent); less is doubtful.
USUAL_ACCURACY = {"digits": 95.0, "mnist": 98.0, "fashion-mnist": 88.0, "cifar10": 80.0, "cifar100": 45.0}


@dataclass(frozen=True)
class OriginalNumbers:
    """What is known of the original network."""

    original_id: str  # sha256 of its weights
    network: str
    dataset: str
    input_size: str
    source: str  # where its weights come from
    macs: int
    params: int
    accuracy: float  # percent, on the test images
    accuracy_val: float  # percent, on the validation images
    test_loss: float  # mean cross-entropy (nats)
    n_test: int  # test images behind `accuracy`
    epochs: float  # passes over the training images; 0 where it was not trained here
    seconds: float  # time that its training took

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def make_original(plan: Plan, images: ImageSet, *, macs: int, device: torch.device) -> nn.Module:
    """Return the original network, trained or loaded, on the CPU and in evaluation mode."""
    source, seed = plan.original.source, plan.original.seed
    kind, _, argument = source.partition(":")
    if kind == "torchvision" and argument:
        network = _from_torchvision(plan, argument)
    else:
        network = planned_network(plan.network, classes=images.classes, input_shape=images.input_shape)
        if source == "train":
            fresh_weights(network, seed)
            network.to(device)
            train(network, images, plan.original.training, macs=macs, seed=seed, device=device)
        else:
            load_weights(network, read_weights(source), f"original.source: {source}")
    return network.to("cpu").to(memory_format=torch.contiguous_format).eval()


def measure_original(
    plan: Plan, network: nn.Module, images: ImageSet, macs: int, params: int, device: torch.device
) -> OriginalNumbers:
    """Measure the original network; how long its training took is for the caller to add."""
    network = network.to(device).to(memory_format=memory_format(device))
    test = evaluate(network, images, images.test, device=device)
    validation = evaluate(network, images, images.validation, device=device)
    check_learned(test, images.classes)
    trained = plan.original.source == "train"
    network = network.to("cpu").to(memory_format=torch.contiguous_format)
    return OriginalNumbers(
        original_id=weights_id(network.state_dict()),
        network=plan.network.name,
        dataset=images.name,
        input_size=images.input_size,
        source=plan.original.source,
        macs=macs,
        params=params,
        accuracy=test.accuracy,
        accuracy_val=validation.accuracy,
        test_loss=test.loss,
        n_test=test.n,
        epochs=training_epochs(plan.original.training, macs, len(images.train)) if trained else 0.0,
        seconds=0.0,
    )


def doubts_about(original: OriginalNumbers, plan: Plan, classes: int) -> Iterator[str]:
    """Yield reasons to doubt an original network, against which all accuracy drops are measured."""
    whole = plan.images.size is None and plan.images.limit is None
    usual, chance = USUAL_ACCURACY.get(plan.images.name, 0.0) if whole else 0.0, 100 / classes
    remedy = (
        "train it longer (epochs or learning_rate of [original.training])"
        if original.source == "train"
        else "check original.source and the order of the classes"
    )
    if original.accuracy < 2 * chance:
        yield (
            f"the original reaches {original.accuracy:.2f} %, less than twice chance ({chance:.3g} %). Before pruning it, "
            f"{remedy}."
        )
    elif original.accuracy < usual:
        yield (
            f"the original reaches {original.accuracy:.2f} % on {plan.images.name}, where small networks reach "
            f"{usual:g} % or more. Before pruning it, {remedy}."
        )


def weights_id(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named weights: names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def weights_bytes(network: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a network's weights as safetensors."""
    # Cloned: safetensors refuses tensors that share their memory, as tied weights do.
    plain = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()
    }
    return save(plain, metadata=dict(metadata or {}))


def load_weights(network: nn.Module, content: bytes, where: str) -> None:
    """Load safetensors into `network`, in place."""
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise PlanError(f"{where}: these weights do not fit the network ({error}).") from error


def read_weights(source: str) -> bytes:
    """Return the content of a plan's file of weights."""
    path = Path(source).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise PlanError(
            "original.source: expected train, torchvision:WEIGHTS or the path of a .safetensors file; "
            f"{path} cannot be read ({error.strerror})."
        ) from error


def check_source(plan: Plan, images: ImageSet) -> None:
    """Refuse weights of torchvision that cannot fit, without loading them."""
    kind, _, argument = plan.original.source.partition(":")
    if kind == "torchvision" and argument:
        classes = len(_torchvision_weights(plan, argument).meta["categories"])
        if classes != images.classes:
            raise PlanError(
                f"original: the network has {classes} outputs, but {images.name} has {images.classes} classes. Take "
                "weights that were trained on these classes."
            )


def _torchvision_weights(plan: Plan, name: str) -> Any:
    """Return torchvision's entry for some weights, such as IMAGENET1K_V2; loads nothing."""
    if plan.network.stem != "standard":
        raise PlanError(
            "original.source: torchvision's weights belong to the standard stem; got network.stem = "
            f"{plan.network.stem!r}."
        )
    if plan.network.name in RESCALES_ITS_INPUT:
        raise PlanError(
            f"original.source: torchvision's weights of {plan.network.name!r} expect input that torchvision "
            'rescales itself; they cannot be used here. Use original.source = "train" or another network.'
        )
    try:
        from torchvision import models
    except ImportError as error:
        raise PlanError(
            "original.source: torchvision is not installed. Install it with: pip install torchvision"
        ) from error
    try:
        known = models.get_model_weights(plan.network.name)
    except ValueError as error:
        raise PlanError(
            f"original.source: torchvision has no weights for {plan.network.name!r}. "
            'Use original.source = "train" or the path of a .safetensors file.'
        ) from error
    if name not in known.__members__:
        raise PlanError(
            f"original.source: torchvision has no weights {name!r} for {plan.network.name!r}; it has "
            f"{', '.join(known.__members__)}."
        )
    return known[name]


def _from_torchvision(plan: Plan, name: str) -> nn.Module:
    """Load one of torchvision's trained networks, downloaded unless torch's cache has it."""
    weights = _torchvision_weights(plan, name)
    from torchvision import models

    try:
        return cast(nn.Module, models.get_model(plan.network.name, weights=weights))
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise PlanError(
            f"original.source: {plan.original.source} could not be downloaded or read ({first_line(error)}). "
            f"Put {weights.url} into {cache}, remove it there if it is damaged, or save the weights as "
            ".safetensors and give that path."
        ) from error
