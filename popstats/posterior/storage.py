"""A fit on disk: one netCDF file with the draws, the settings and the population.

The regimes' cross-products are not stored: they follow from the population and the settings, and are
recomputed on loading.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popstats.errors import FitError
from popstats.inference.draws import Draws
from popstats.inference.model import Priors, Settings
from popstats.inference.spread import weighted_regimes
from popstats.population.files import load_population
from popstats.population.recipes import prepared_recipes
from popstats.population.table import folder_for

if TYPE_CHECKING:
    import xarray as xr

    from popstats.posterior.curves import FittedCurves

#: Version of the file format; 3: the draws in the model's units, in a group of their own.
FORMAT = 3
_DIMS = ("chain", "draw", "regime", "column")


def save_fit(fit: FittedCurves, path: Path) -> Path:
    """Write `fit` to `path` (netCDF); returns the path."""
    import xarray as xr

    folder_for(path)
    with tempfile.TemporaryDirectory() as folder:
        parquet = fit.population.save(Path(folder) / "population.parquet").read_bytes()
    description = {
        "format": FORMAT,
        "settings": asdict(fit.settings),
        "priors": asdict(fit.prior_settings),
        "width_columns": fit.population.width_columns,
        "seconds": fit.seconds,
    }
    if isinstance(fit.settings.regimes, dict):
        description["regime_widths"] = sorted(fit.settings.regimes.items())
    draws = asdict(fit.draws)
    held = {name: v for name, v in draws.items() if isinstance(v, np.ndarray) and v.ndim > 1}
    groups = {
        "draws": xr.Dataset({name: (_DIMS[: values.ndim], values) for name, values in held.items()}),
        "statistics": xr.Dataset({name: (_DIMS[:2], values) for name, values in draws["statistics"].items()}),
    }
    tree = xr.DataTree.from_dict(groups)
    if fit.draws.edge_probability is not None:
        tree["edge_probability"] = xr.DataArray(fit.draws.edge_probability, dims="fitted")
    tree["population"] = xr.DataArray(np.frombuffer(parquet, dtype=np.uint8), dims="byte")
    tree.attrs["popstats"] = json.dumps(description)
    tree.to_netcdf(path, engine="h5netcdf")
    return path


def read_parts(path: Path) -> dict[str, Any]:
    """Read a fit that `save_fit` wrote."""
    import xarray as xr

    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError) as error:
        raise FitError(f"{path}: cannot be read as a saved fit ({error}); Fit.save writes one") from error
    if "popstats" not in tree.attrs:
        raise FitError(f"{path}: a netCDF file, but not one that Fit.save wrote")
    description = json.loads(tree.attrs["popstats"])
    if (held := description["format"]) != FORMAT:
        raise FitError(f"{path}: format {held}, this version reads {FORMAT}; fit the population again")
    return _parts(tree, description)


def _parts(tree: xr.DataTree, description: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "population.parquet"
        file.write_bytes(tree["population"].to_numpy().tobytes())
        population = load_population(file, widths=tuple(description["width_columns"]))
    # JSON has no tuples.
    stored: dict[str, Any]
    pairs: dict[str, Any]
    stored, pairs = (
        {name: tuple(v) if isinstance(v, list) else v for name, v in description[of].items()}
        for of in ("settings", "priors")
    )
    if "regime_widths" in description:
        stored["regimes"] = dict(description["regime_widths"])
    settings, priors = Settings(**stored), Priors(**pairs)
    held, statistics = (
        {str(name): values.to_numpy() for name, values in tree[group].data_vars.items()}
        for group in ("draws", "statistics")
    )
    edge = tree["edge_probability"].to_numpy() if "edge_probability" in tree else None
    recipes = prepared_recipes(population, settings.regime_axis, settings.regimes)
    regimes, changes = weighted_regimes(population, recipes, priors, settings.random_seed)
    return {
        "population": population,
        "regimes": regimes,
        "settings": settings,
        "prior_settings": priors,
        "draws": Draws(**held, statistics=statistics, edge_probability=edge),
        "spread_changes": changes,
        "seconds": description["seconds"],
    }
