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
from numba import carray, types  # type: ignore[attr-defined]

from popstats.arrays import FloatArray

_doubles = types.CPointer(types.double)  # type: ignore[no-untyped-call]
#: What nutpie calls: (dimension, position, gradient out, value out, data) -> 0, or a positive number where the
#: density is not finite.
DENSITY = types.int64(types.uint64, _doubles, _doubles, _doubles, types.voidptr)
_EXPANSION = types.int64(types.uint64, types.uint64, _doubles, _doubles, types.voidptr)


@dataclass(frozen=True)
class RawDraws:
    """Draws of the sampler's coordinates."""

    positions: FloatArray  # (chains, draws, dimension)
    statistics: dict[str, FloatArray]  # (chains, draws); See `sampler_statistics`.


@dataclass(frozen=True)
class Chains:
    """How long and from where the sampler walks: the same values give the same draws."""

    number: int  # Chains, side by side on as many cores as there are.
    # draws, tune: Kept draws of each chain, and those before them that only adapt it.
    draws: int
    tune: int
    seed: int


def _copy(dimension: Any, expanded: Any, position: Any, out: Any, data: Any) -> int:
    carray(out, (expanded,))[:] = carray(position, (dimension,))
    return 0


@lru_cache(maxsize=1)
def _identity() -> Any:
    return numba.cfunc(_EXPANSION, cache=True)(_copy)


def sample_compiled(
    density: Any, data: FloatArray, dimension: int, chains: Chains, **options: Any
) -> RawDraws:
    """Sample a density whose coordinates are about standard normal."""
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
    trace = run_chains(model, chains, save_warmup=False, **options)
    return RawDraws(trace["posterior"][name].to_numpy(), sampler_statistics(trace))


def run_chains(model: Any, chains: Chains, **options: Any) -> Any:
    """Return nutpie's trace of a compiled model; `options` are those of `nutpie.sample`."""
    import nutpie

    return nutpie.sample(
        model,
        draws=chains.draws,
        tune=chains.tune,
        chains=chains.number,
        seed=chains.seed,
        progress_bar=False,
        **options,
    )


def sampler_statistics(trace: Any) -> dict[str, FloatArray]:
    """Return what the diagnostics need of nutpie's statistics, each (chains, draws)."""
    statistics = trace["sample_stats"]
    return {name: statistics[name].to_numpy().astype(np.float64) for name in ("diverging", "energy")}


def say(progress: bool | None, what: str) -> None:
    """Say on standard error what is being done; by default only on a terminal."""
    if sys.stderr.isatty() if progress is None else progress:
        print(f"popstats: {what} ...", file=sys.stderr, flush=True)
