"""Finding a Ray cluster and its capacity, with a message for each way in which that fails."""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popstats.errors import RunFolderError

if TYPE_CHECKING:
    import torch

    from generate.plan import Plan


# What an actor asks for, and what Ray calls it on a node.
KINDS = {"num_cpus": "CPU", "num_gpus": "GPU"}
# Ray itself tries for minutes, without a word, before it gives an address up.
ANSWER_SECONDS = 10.0
ADDRESS = "RAY_ADDRESS"
# Where `ray start` leaves the address of the cluster that this machine belongs to.
STARTED_HERE = Path("ray") / "ray_current_cluster"


def join(plan: Plan, device: torch.device) -> tuple[Any, dict[str, float]]:
    """Connect to a cluster with room for an actor; return Ray and what one actor asks for: num_cpus and num_gpus."""
    ray, gpus = connect(), plan.gpus_per_training if device.type == "cuda" else 0
    resources: dict[str, float] = {"num_cpus": 1, "num_gpus": gpus}
    if room_for(ray, resources) < 1:
        present = ray.cluster_resources()
        offered = ", ".join(f"{present.get(name, 0):g} {name}s" for name in KINDS.values())
        needed = ", ".join(f"{resources[name]:g} {short}" for name, short in KINDS.items())
        raise RunFolderError(
            f"--executor ray: the cluster offers {offered}, but one training needs {needed}. Add nodes "
            "(`ray start --address`), lower gpus_per_training in the plan, or train with --device cpu."
        )
    return ray, resources


def connect() -> Any:
    """Connect to the cluster that RAY_ADDRESS or `ray start` names, or start Ray on this machine."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise RunFolderError(
            "--executor ray: Ray is not installed. Install it with: pip install ray"
        ) from error
    if not ray.is_initialized():
        address, named_by = _known_address()
        _check_answer(address, named_by)
        _initialise(ray, address if named_by == ADDRESS else "")
    return ray


def _known_address() -> tuple[str, str]:
    """Return the address that Ray will take, empty if it will start by itself, and who names it."""
    named = os.environ.get(ADDRESS, "")
    if named not in ("", "auto"):
        return ("" if named == "local" else named), ADDRESS
    left = _left_by_ray_start()
    return (left.read_text(encoding="utf-8").strip() if left.exists() else ""), str(left)


def _left_by_ray_start() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / STARTED_HERE


def _check_answer(address: str, named_by: str) -> None:
    """Refuse an address at which nothing listens, in seconds instead of minutes."""
    if not address:
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise RunFolderError(
            f"--executor ray: expected {named_by} to hold HOST:PORT (such as 10.0.0.1:6379), got {address!r}."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise RunFolderError(
            f"--executor ray: no Ray cluster answers at {address} (from {named_by}): {error.strerror or error}. "
            "Start it there with `ray start --head`, correct the address, or, to use this machine alone, "
            + (f"unset {ADDRESS}." if named_by == ADDRESS else "forget the old cluster with `ray stop`.")
        ) from error


def _initialise(ray: Any, named: str) -> None:
    """Call ray.init, quietly, and take the signal handler back that it sets; `named` is what RAY_ADDRESS says."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # The whole message: which versions do not go together stands in its later lines.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFolderError(
            f"--executor ray: Ray could not be joined or started ({reason}). {_is_a_node(named)}A "
            "cluster with token authentication needs RAY_AUTH_MODE=token and the same ~/.ray/auth_token here and on "
            "every node; all nodes need the same versions of Python and Ray."
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)


def _is_a_node(named: str) -> str:
    """Say what is missing where a cluster answers at an address that this machine has not joined."""
    if not named or _left_by_ray_start().exists():
        return ""
    return f"This machine must be one of its nodes: first `ray start --address {named}` here. "


def room_for(ray: Any, resources: Mapping[str, float]) -> int:
    """Return how many actors the cluster has room for, those that it has included."""
    present: dict[str, float] = ray.cluster_resources()
    counts = [(need, math.floor(present.get(KINDS[name], 0))) for name, need in resources.items() if need]
    # A share of a GPU must lie on one GPU, so that 0.4 fits twice on each.
    return min(count * math.floor(1 / need + 1e-9) for need, count in counts)


def unused_gpus(ray: Any, device: torch.device) -> str:
    """Return a sentence on GPUs of the cluster that trainings on `device` leave idle; empty if there are none."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if device.type == "cuda" or not gpus:
        return ""
    return (
        f"the cluster's {gpus:g} GPUs stay idle: trainings run on the kind of device that this machine has, which "
        "is a CPU. Start the command on a node with a GPU to use them."
    )


def describe(ray: Any, actors: int) -> str:
    """Return one line on the cluster, such as "Ray: 2 nodes, 8 CPUs, 2 GPUs; 8 actors"."""
    present: dict[str, float] = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    offered = (
        f"{nodes} node{'s' * (nodes != 1)}, {present.get('CPU', 0):g} CPUs, {present.get('GPU', 0):g} GPUs"
    )
    return f"Ray: {offered}; {actors} actor{'s' * (actors != 1)}"
