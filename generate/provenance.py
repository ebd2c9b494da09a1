"""Where a row comes from: versions, device and what the processor can do. Recorded, never guessed later."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from generate.kernel import Kernel
from generate.training import memory_format
from popstats import __version__

__all__ = ["FUSED", "Provenance", "choose_device", "code_version", "hardware", "now", "provenance_of"]

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
    """Return the device for auto | cpu | cuda | cuda:N.

    Raises
    ------
    RuntimeError
        If torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@cache
def code_version() -> str:
    """Return the version of this package, with the commit where it runs from a checkout and git can be asked."""
    checkout = Path(__file__).parent.parent
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
