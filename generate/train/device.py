"""Where a row comes from: versions, device and what the processor can do. Recorded, never guessed later."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from generate.inputs.kernel import Kernel
from popstats import __version__

# What `memory_format` says besides the layout of rows that were trained with the compiled kernel.
FUSED = ", fused batch norm"


@dataclass(frozen=True)
class Provenance:
    """The provenance columns that all trainings of one worker share."""

    code_version: str
    torch_version: str
    device: str
    cpu_capability: str
    memory_format: str

    def as_dict(self) -> dict[str, str]:
        """Return the columns by name."""
        return asdict(self)


def provenance_of(device: torch.device, kernel: Kernel | None = None) -> Provenance:
    """Return the provenance of trainings on `device` in this process, with batch norm in `kernel`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    layout = "channels_last" if memory_format(device) is torch.channels_last else "contiguous"
    if kernel is not None:
        layout += FUSED
    return Provenance(
        code_version(), str(torch.__version__), name, torch.backends.cpu.get_cpu_capability(), layout
    )


def choose_device(name: str) -> torch.device:
    """Return the device for auto | cpu | cuda | cuda:N."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@cache
def code_version() -> str:
    """Return the version of this package, with the commit where it runs from a checkout and git can be asked."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return __version__
    asked = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=10", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{__version__}+{asked.stdout.strip()}" if asked.returncode == 0 else __version__


def hardware() -> str:
    """Return the machine in words, such as "2 CPU cores (x86_64, AVX512), no GPU"."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = f"{cores} CPU cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return f"{processor}, {' + '.join(gpus) if gpus else 'no GPU'}"


def now() -> str:
    """Return the present time as the table holds it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Small networks keep a GPU busy only a fraction of the time: several processes share one.
WORKERS_PER_GPU = 4


def default_workers(device: torch.device) -> int:
    """Return the number of workers to start: one per CPU core, or a few per GPU (all GPUs unless one is named)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if device.type == "cpu":
        return cores
    gpus = torch.cuda.device_count() if device.index is None else 1
    return min(cores, WORKERS_PER_GPU * max(1, gpus))


def worker_devices(device: torch.device, workers: int) -> list[str]:
    """Return each worker's device: spread over all GPUs unless one is named."""
    if device.type != "cuda" or device.index is not None:
        return [str(device)] * workers
    return [f"cuda:{worker % torch.cuda.device_count()}" for worker in range(workers)]


# glibc's mallopt parameters, and the largest thresholds that it takes: blocks below the first come from the heap,
# and the heap is not given back before that much of it is free.
MALLOC_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -3, 2**25


MALLOC_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD = -1, 2**31 - 1


def settle_on_one_core() -> None:
    """Set a worker process up: one thread, and memory that one step frees is kept for the next.

    One thread per worker is faster in sum, and gives the same result to the last digit whatever the number of
    workers. Activations of several MB would otherwise be mapped and unmapped in every step, each page a fault:
    7 % of the time of ResNet-8 on CIFAR-10 here. Where the C library is not glibc, its ways are left alone.
    """
    torch.set_num_threads(1)
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(MALLOC_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        allocator(MALLOC_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)


def settle_on_device(device: torch.device) -> None:
    """Set a process up that trains on `device`: as `settle_on_one_core`, and of GPUs, that one alone.

    Everything that names no GPU would otherwise open a context of half a GB on the first one. cuDNN is held to those of
    its algorithms that give the same result each time.
    """
    settle_on_one_core()
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        if device.index is not None:
            torch.cuda.set_device(device)


def release_freed_memory() -> None:
    """Give back to the system what the last training freed: the next network's shapes are others.

    Without it, what `settle_on_one_core` keeps grows by fragments: 1.7 GB after 40 thin networks instead of 0.8. On a
    GPU, other workers wait for what this one would keep.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of activations: channels-last on GPUs and with AVX-512, else contiguous.

    On AVX2 a 1x1 stride-2 convolution with fewer than 8 input channels corrupts memory in channels-last
    (oneDNN issue 6035), which cut networks do have.
    """
    if device.type == "cuda" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return torch.channels_last
    return torch.contiguous_format
