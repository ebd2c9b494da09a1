"""The draws of a fit as the DataTree that ArviZ's functions accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from popstats.posterior.curves import FittedCurves

_DRAWS = ("length_scale", "amplitude", "noise", "seed_share")


def posterior_tree(fit: FittedCurves) -> xr.DataTree:
    """Return the draws of `fit` as a DataTree.

    Groups: `posterior` (length_scale, amplitude, noise, seed_share: chain, draw, regime; coefficients with a
    further dimension; optimum and limit in users' units), `sample_stats` (nuts only).
    """
    import xarray as xr

    labels = [r.label for r in fit.fitted]
    dims = ("chain", "draw", "regime")
    variables: dict[str, Any] = {name: (dims, getattr(fit.draws, name)) for name in _DRAWS}
    variables["coefficients"] = ((*dims, "coefficient"), fit.draws.coefficients)
    if fit.draws.shape is not None:
        variables["shape"] = (dims, fit.draws.shape)
    shape = fit.draws.noise.shape
    if fit.fitted:
        optimum = np.stack([o.log_mcb for o in fit.optimum_draws], axis=1).reshape(shape)
        limit = np.stack([o.limit for o in fit.optimum_draws], axis=1).reshape(shape)
        variables["optimal_mcb"] = (dims, np.exp(optimum), {"units": "relative to the original"})
        variables["limit"] = (dims, limit, {"units": "percentage points"})
    coordinates = {"regime": labels, "chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    groups = {"posterior": xr.Dataset(variables, coords=coordinates)}
    if fit.draws.statistics:
        statistics = {name: (("chain", "draw"), values) for name, values in fit.draws.statistics.items()}
        groups["sample_stats"] = xr.Dataset(statistics)
    return xr.DataTree.from_dict(groups)
