"""The sampler's door: NUTS on a log density that is already compiled.

nutpie's own way from a PyMC model compiles the same wrappers again in every process, which takes longer than
the sampling. A C function that numba keeps on disk has nothing left to compile.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import carray, types  # type: ignore[attr-defined]

__all__ = ["DENSITY", "RawDraws", "sample_compiled", "sampler_statistics", "say"]

FloatArray = npt.NDArray[np.float64]

_doubles = types.CPointer(types.double)  # type: ignore[no-untyped-call]
#: What nutpie calls: (dimension, position, gradient out, value out, data) -> 0, or a positive number where the
#: density is not finite.
DENSITY = types.int64(types.uint64, _doubles, _doubles, _doubles, types.voidptr)
_EXPANSION = types.int64(types.uint64, types.uint64, _doubles, _doubles, types.voidptr)


@dataclass(frozen=True)
class RawDraws:
    """Draws of the sampler's coordinates.

    Attributes
    ----------
    positions : numpy.ndarray, shape (chains, draws, dimension)
    statistics : dict of numpy.ndarray, shape (chains, draws)
        See `sampler_statistics`.
    """

    positions: FloatArray
    statistics: dict[str, FloatArray]


def _copy(dimension: Any, expanded: Any, position: Any, out: Any, data: Any) -> int:
    carray(out, (expanded,))[:] = carray(position, (dimension,))
    return 0


@lru_cache(maxsize=1)
def _identity() -> Any:
    return numba.cfunc(_EXPANSION, cache=True)(_copy)


def sample_compiled(
    density: Any, data: FloatArray, dimension: int, *, seed: int, draws: int, tune: int, chains: int
) -> RawDraws:
    """Sample a density whose coordinates are about standard normal.

    Parameters
    ----------
    density : numba cfunc
        Of signature `DENSITY`.
    data : numpy.ndarray
        What the density reads through its last argument.
    dimension : int
    seed, draws, tune, chains : int
        The same values give the same draws.

    Returns
    -------
    RawDraws
    """
    import nutpie
    from nutpie.compile_pymc import CompiledPyMCModel

    name = "position"
    model = CompiledPyMCModel(
        dims={},
        compiled_logp_func=density,
        compiled_expand_func=_identity(),
        initial_point_func=lambda seed: np.random.default_rng(seed).standard_normal(dimension),
        shared_data={},
        shared_var_keys={},
        user_data=data,
        n_expanded=dimension,
        shape_info=([name], [slice(0, dimension)], [(dimension,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=dimension,
        _shapes={name: (dimension,)},
        _coords={},
    )
    trace = nutpie.sample(
        model, draws=draws, tune=tune, chains=chains, seed=seed, progress_bar=False, save_warmup=False
    )
    return RawDraws(trace["posterior"][name].to_numpy(), sampler_statistics(trace))


def sampler_statistics(trace: Any) -> dict[str, FloatArray]:
    """Return what the diagnostics need of nutpie's statistics, each (chains, draws)."""
    statistics = trace["sample_stats"]
    return {name: statistics[name].to_numpy().astype(np.float64) for name in ("diverging", "energy")}


def say(progress: bool | None, what: str) -> None:
    """Say on standard error what is being done; by default only on a terminal."""
    if sys.stderr.isatty() if progress is None else progress:
        print(f"popstats: {what} ...", file=sys.stderr, flush=True)
