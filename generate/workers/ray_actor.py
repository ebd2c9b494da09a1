"""What runs on the nodes of a Ray cluster: an actor that gets everything it needs once, then trains what it is given."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import torch

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet
from generate.plan import Plan, plan_from_dict
from generate.recipes.worklist import Training
from generate.run.folder import RunFolder
from generate.train.device import release_freed_memory, settle_on_device
from generate.train.original import OriginalNumbers, weights_bytes
from generate.train.subnetwork import DeviceError, WorkerContext, train_subnetwork
from popstats.errors import RunFolderError

# Plan and original as in the run folder, images, the original network's weights, "cuda" or "cpu"; sent once.
type Parts = tuple[Mapping[str, Any], Mapping[str, Any], ImageSet, bytes, str]


def parts_of(folder: RunFolder, plan: Plan, device: torch.device) -> Parts:
    """Return what actors need, from a prepared folder."""
    weights = folder.weights_path.read_bytes()
    return plan.as_dict(), folder.read_original() or {}, load_images(plan.images), weights, device.type


def _check_gpu(device: torch.device) -> None:
    """Check that a GPU that Ray has promised is there; `ray start --num-gpus` takes any number for granted."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunFolderError(
            f"{socket.gethostname()} has joined the cluster with a GPU, but torch {torch.__version__} sees none there. "
            "Start its Ray again without --num-gpus, or install a torch for its driver"
        )


class Trainer:
    """The actor: prepares itself once, then trains what it is given."""

    def __init__(self, parts: Parts) -> None:
        plan, original, images, weights, kind = parts
        # Ray shows an actor no GPU but its own, which is then the first one.
        device = torch.device("cuda:0" if kind == "cuda" else kind)
        _check_gpu(device)
        settle_on_device(device)
        self._context = WorkerContext.from_parts(
            plan_from_dict(plan), images, weights, OriginalNumbers(**original), device
        )

    def ready(self) -> tuple[str, str]:
        """Answer once trainings can start: the node's name and its version of torch."""
        return socket.gethostname(), self._context.provenance["torch_version"]

    def train(self, training: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the row of one training, and its weights where the plan keeps them."""
        one = Training.from_dict(training)
        try:
            row, network = train_subnetwork(self._context, one)
        except DeviceError as error:
            # At once, without Ray's own farewell: the driver opens another actor for one that is gone.
            os._exit(error.exit_code)
        release_freed_memory()
        keep = network is not None and self._context.keeps_weights(one)
        return row, weights_bytes(network) if keep and network is not None else b""
