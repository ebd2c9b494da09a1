"""The compiled part of training on a CPU: batch norm with addition and ReLU, built once a machine from `batch_norm.c`."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("batch_norm.c")
COMPILERS = ("cc", "gcc", "clang")
# Without contraction and reordering, IEEE arithmetic has one result: whatever the compiler, the bits are the same.
FLAGS = (
    "-O3",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mprefer-vector-width=512",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
# One row of this many numbers and its sums fit the first cache; batch_norm.c reserves room for so many.
MOST_LANES = 2048
# Single-precision numbers of one 512-bit register, and the rows that are worth starting a loop for.
REGISTER = 16
SHORTEST_ROW = 128

# Pixels of an image: of 8x8 scans, ResNet-8's time goes into starting convolutions, and the kernel won nothing.
SMALLEST_IMAGE = 16 * 16

NO_COMPILER = (
    "No C compiler (cc) that builds the fused batch norm: training takes torch's own, which is 10 to 30 % slower. "
    "Rows say in memory_format which one they had."
)

_POINTER, _LONG, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
_FORWARD: tuple[Any, ...] = (
    *[_POINTER] * 3,
    *[_LONG] * 3,
    *[_POINTER] * 2,
    *[_DOUBLE] * 2,
    *[_POINTER] * 6,
    _INT,
)
_BACKWARD: tuple[Any, ...] = (*[_POINTER] * 5, *[_LONG] * 3, *[_POINTER] * 7, _INT)


@dataclass(frozen=True)
class Kernel:
    """The two compiled functions, which take addresses of tensors' data; `batch_norm.c` says what they compute."""

    forward: Any
    backward: Any


def kernel_for(device: torch.device, input_shape: tuple[int, int, int]) -> Kernel | None:
    """Return the compiled kernel for trainings on `device` with images of `input_shape`.

    None where it is of no use (GPUs, small images, processors without AVX-512, whose tensors are not channels-last
    here) and where no C compiler builds it; torch's own batch norm is used then.
    """
    return _loaded() if _of_use(device, input_shape) else None


def missing_kernel(device: torch.device, input_shape: tuple[int, int, int]) -> str:
    """Return a sentence for the user where the kernel would be of use but cannot be built; else nothing."""
    return NO_COMPILER if _of_use(device, input_shape) and _loaded() is None else ""


def _of_use(device: torch.device, input_shape: tuple[int, int, int]) -> bool:
    _, height, width = input_shape
    return (
        device.type == "cpu"
        and "AVX512" in torch.backends.cpu.get_cpu_capability()
        and height * width >= SMALLEST_IMAGE
    )


def lanes_of(channels: int) -> int:
    """Return how many numbers the kernel takes at once: whole registers and whole pixels, if that is not too many."""
    pixels = REGISTER // math.gcd(channels, REGISTER)
    row = channels * pixels
    return channels if row > MOST_LANES else row * -(-SHORTEST_ROW // row)


@cache
def _loaded() -> Kernel | None:
    library = _library()
    if library is None:
        return None
    for function, types in ((library.batch_norm_forward, _FORWARD), (library.batch_norm_backward, _BACKWARD)):
        function.argtypes, function.restype = types, None
    return Kernel(library.batch_norm_forward, library.batch_norm_backward)


def _library() -> ctypes.CDLL | None:
    """Load the built library from the user's cache; where nothing can be kept there, build it for this process."""
    kept = _cache_folder() / f"batch_norm-{_identity()}.so"
    if kept.exists():
        return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / kept.name
        if not _build(built):
            return None
        # A home that is read-only or full costs each process a second of compiling, nothing else.
        _keep(built, kept)
        return ctypes.CDLL(str(built))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "popstats"


def _identity() -> str:
    """Name a build by what decides its bits; the compiler does not."""
    text = " ".join((sysconfig.get_platform(), *FLAGS))
    return hashlib.sha256(SOURCE.read_bytes() + text.encode()).hexdigest()[:16]


def _build(target: Path) -> bool:
    compilers = (os.environ.get("CC"), *COMPILERS)
    for compiler in filter(None, (shutil.which(name) for name in compilers if name)):
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(target), "-lm"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return True
    return False


def _keep(built: Path, kept: Path) -> bool:
    """Put a build where the next process finds it, whole or not at all; return whether that was possible."""
    beside = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built, beside)
        os.replace(beside, kept)
    except OSError:
        if kept.parent.is_dir():
            beside.unlink(missing_ok=True)
        return False
    return True
