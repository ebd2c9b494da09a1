"""The device and its process: what trainings run on, how it is set up, and what rows record of it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from popstats import __version__

# Small networks keep a GPU busy only a fraction of the time: several processes share one.
WORKERS_PER_GPU = 4
# glibc's mallopt parameters, and the largest thresholds that it takes: blocks below the first come from the heap,
# and the heap is not given back before that much of it is free.
MALLOC_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -3, 2**25
MALLOC_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD = -1, 2**31 - 1


def provenance_of(device: torch.device) -> dict[str, str]:
    """Return the provenance columns that all trainings on `device` in this process share."""
    return {
        "code_version": code_version(),
        "torch_version": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_format": "channels_last" if memory_format(device) is torch.channels_last else "contiguous",
    }


def choose_device(name: str) -> torch.device:
    """Return the device for auto | cpu | cuda | cuda:N."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@cache
def code_version() -> str:
    """Return the version of this package, with the commit where it runs from a checkout and git is installed."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return __version__
    command = ["git", "-C", str(checkout), "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{__version__}+{commit.stdout.strip()}" if commit.returncode == 0 else __version__


def hardware() -> str:
    """Return the machine in words, such as "2 CPU cores (x86_64, AVX512), no GPU"."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    processor = f"{_cores()} CPU cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return f"{processor}, {' + '.join(gpus) if gpus else 'no GPU'}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def now() -> str:
    """Return the present time as the table holds it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def default_workers(device: torch.device) -> int:
    """Return the number of workers to start: one per CPU core, a few per GPU (of all GPUs, unless one is named)."""
    if device.type == "cpu":
        return _cores()
    gpus = torch.cuda.device_count() if device.index is None else 1
    return min(_cores(), WORKERS_PER_GPU * max(1, gpus))


def worker_devices(device: torch.device, workers: int) -> list[str]:
    """Return each worker's device: all GPUs in turn, unless one is named."""
    if device.type != "cuda" or device.index is not None:
        return [str(device)] * workers
    return [f"cuda:{worker % torch.cuda.device_count()}" for worker in range(workers)]


def settle_on_device(device: torch.device) -> None:
    """Set a process up that trains on `device`: one thread, memory kept between steps, no GPU but its own."""
    # Faster in sum, and the same result to the last digit whatever the number of workers.
    torch.set_num_threads(1)
    # glibc would map and unmap activations of several MB in every step: 7 % of the time of ResNet-8 on CIFAR-10.
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(MALLOC_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        allocator(MALLOC_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        if device.index is not None:  # what names no GPU would open a context of half a GB on the first one
            torch.cuda.set_device(device)


def release_freed_memory() -> None:
    """Give back to the system what the last training freed: the next network has other shapes."""
    # Kept memory would grow by fragments: 1.7 GB after 40 thin networks instead of 0.8. On a GPU, other workers wait for it.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of activations: channels-last on GPUs and with AVX-512, else contiguous."""
    # On AVX2, channels-last 1x1 stride-2 convolutions of under 8 input channels corrupt memory (oneDNN issue 6035).
    if device.type == "cuda" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        return torch.channels_last
    return torch.contiguous_format
