r"""Closed-form inference: coefficients, noise and what regimes share, on grids.

With noise sd :math:`\sigma`, amplitude :math:`r\sigma` and spectral density D(l), the projected data
(fixed terms removed) of one regime have

.. math:: \log p(y) = -\tfrac{n-p_f}{2}\log\sigma^2 - \tfrac12\sum_j\log(1+r^2\lambda_j)
          - \frac{1}{2\sigma^2}\Bigl(y'y - \sum_j \frac{r^2 z_j^2}{1+r^2\lambda_j}\Bigr),

where lambda and z come from one eigendecomposition of D^{1/2} X'X D^{1/2} per length scale. Amplitude and
noise are then scalars: a dense grid over all hyperparameters costs milliseconds.

Regimes resemble each other. Given the common values g (one for log length scale, log amplitude and log noise each,
standard normal), they are independent, and a hyperparameter standardised by its prior is normal with mean
:math:`\sqrt\pi g` and variance :math:`1 - \pi`, :math:`\pi` the pooled share. With the cells c of regime k's grid, their
places x and their weights w under independent priors,

.. math:: p(g \mid y) \propto e^{-g'g/2} \prod_k \sum_c w_{kc} \prod_i
          \frac{\mathrm{N}(x_{kci}; \sqrt\pi g_i, 1 - \pi)}{\mathrm{N}(x_{kci}; 0, 1)},

and draws of g, then of each regime's cell given g, then of its coefficients are exact and independent.

References
----------
Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 2.7 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import Draws
from popstats.inference.model import Hyper, Priors, log_basis_variance, prior_precision

#: Length scales, in prior standard deviations of the log from the median.
_LENGTHS = np.linspace(-2.4, 2.4, 16)
#: Amplitudes over the noise, and noises in posterior standard deviations of their log at given amplitude.
_RATIOS = np.exp(np.linspace(np.log(0.01), np.log(3000.0), 48))
#: ... and more of them, in equal steps, where so much of the posterior lies at the largest: hardly any noise at all.
_MORE_RATIOS, _MUCH = _RATIOS[-1] * (_RATIOS[1] / _RATIOS[0]) ** np.arange(1, 41), 1e-3
_NOISES = np.linspace(-4.0, 4.0, 11)
#: Seed shares; more where so few degrees of freedom within recipes leave them wide and skewed.
_SHARES, _MANY_SHARES, _FEW_FREEDOM = 9, 17, 20
_SHARE_LIMIT = 7.0  # logit; shares from 0.1 % to 99.9 % ...
_SHARE_MARGIN = 2.0  # ... or from a seventh of the least that the replicates allow,
_SHARE_LEAST = 1e-9  # which is more than this: less is identical replicates
_SHARE_ZOOMS = 7
#: Common values along each of the three axes: steps of about one posterior standard deviation at the end ...
_NODES, _REACH = 9, 4.0
#: ... of at most this many rounds, each about the last one's mean.
_ZOOMS = 8
#: Cells with less of a regime's posterior than this are left out.
_NOTHING = 1e-8


def coefficient_posterior(design: RegimeDesign, hyper: Hyper) -> tuple[FloatArray, FloatArray]:
    """Return mean (S, p) and a root of the covariance (S, p, p) of the coefficients given S sets of hyperparameters."""
    variance = design.variance(hyper.noise, hyper.seed_share)
    precision = np.einsum("ds,sij->dij", 1.0 / variance, design.xx)
    index = np.arange(precision.shape[1])
    precision[:, index, index] += prior_precision(design.fixed, hyper.length_scale, hyper.amplitude)
    root = np.linalg.inv(np.linalg.cholesky(precision)).transpose(0, 2, 1)
    target = (1.0 / variance) @ design.xy
    return np.einsum("dij,dkj,dk->di", root, root, target, optimize=True), root


def draw_coefficients(design: RegimeDesign, hyper: Hyper, rng: np.random.Generator) -> FloatArray:
    """Return exact draws of the coefficients, one per set of hyperparameters, shape (S, p)."""
    normal = rng.standard_normal((hyper.noise.size, design.xy.shape[1]))
    # In units of the noise, draws of one cell of the grid have the same posterior: one root serves them all.
    unit = np.array([hyper.length_scale, hyper.amplitude / hyper.noise, hyper.seed_share])
    kinds, kind = np.unique(unit.round(12), axis=1, return_inverse=True)
    mean, root = coefficient_posterior(design, Hyper(kinds[0], kinds[1], np.ones_like(kinds[0]), kinds[2]))
    order = np.argsort(kind, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        normal[mine] = mean[kind[mine[0]]] + hyper.noise[mine, None] * (normal[mine] @ root[kind[mine[0]]].T)
    return normal


def shrinkage(design: RegimeDesign, mean: FloatArray, hyper: Hyper) -> FloatArray:
    """Return the bias of the coefficients' posterior mean, estimated at that mean itself as under normal noise, (p,)."""
    (root,) = coefficient_posterior(design, hyper)[1]
    pull = prior_precision(design.fixed, hyper.length_scale, hyper.amplitude)[0] * mean
    pull[: len(design.fixed)] = 0.0
    return np.asarray(-root @ (root.T @ pull))


def log_likelihood(design: RegimeDesign, hyper: Hyper, coefficients: FloatArray) -> FloatArray:
    """Return the log likelihood of a regime's recipes under normal noise, up to a constant, shape (S,)."""
    # coefficients (S, p)
    variance = design.variance(hyper.noise, hyper.seed_share)
    misfit = design.yy - 2.0 * coefficients @ design.xy.T
    misfit = misfit + np.einsum("di,sij,dj->ds", coefficients, design.xx, coefficients, optimize=True)
    total = -0.5 * (design.count * np.log(variance) + misfit / variance).sum(axis=1)
    if design.has_replicates:
        run = hyper.seed_share * hyper.noise**2
        total -= 0.5 * (design.within_df * np.log(run) + design.within / run)
    return np.asarray(total)


class RegimeGrid:
    """Cells of one regime's hyperparameters, of at least this weight, and how probable independent priors make them."""

    def __init__(self, design: RegimeDesign, priors: Priors, least: float = 0.0) -> None:
        lengths = np.asarray(priors.length_scale[0] * np.exp(priors.length_scale[1] * _LENGTHS))
        shares = _share_grid(design, lengths, priors)
        for ratios in (_RATIOS, np.concatenate([_RATIOS, _MORE_RATIOS])):
            log_weight, log_noise = _tabulate(design, lengths, shares, priors, ratios)
            weight = np.exp(log_weight - log_weight.max())
            weight /= weight.sum()
            if weight[:, :, -1].sum() < _MUCH:
                break
        weight = weight.ravel()
        cells = np.flatnonzero(weight >= least)
        share, length, ratio, _ = np.unravel_index(cells, log_weight.shape)
        noise = np.exp(log_noise.ravel()[cells])
        self.design, self.weight = design, weight[cells]
        self.hyper = Hyper(lengths[length], ratios[ratio] * noise, noise, shares[share])
        self.place = np.array(priors.standardised(self.hyper))
        # Of the largest amplitude; the lengths end where their prior does.
        self.at_edge = ratio == ratios.size - 1

    def draw(self, cells: npt.NDArray[np.intp], rng: np.random.Generator) -> tuple[Hyper, FloatArray]:
        """Return the hyperparameters of cells with a draw of the coefficients for each."""
        hyper = Hyper(*(values[cells] for values in self.hyper[:4]))
        return hyper, draw_coefficients(self.design, hyper, rng)

    def ratio(self, nodes: FloatArray, pooling: float) -> FloatArray:
        """Return each cell's prior given a common value over its prior without one, (3, G) -> (3, G, N)."""
        away = self.place[:, None, :] - np.sqrt(pooling) * nodes[:, :, None]
        log_ratio = 0.5 * (self.place[:, None, :] ** 2 - away**2 / (1.0 - pooling))
        return np.asarray(np.exp(log_ratio) / np.sqrt(1.0 - pooling))

    def choose(
        self, ratio: FloatArray, common: npt.NDArray[np.intp], rng: np.random.Generator
    ) -> npt.NDArray[np.intp]:
        """Return one cell per draw, given the number of its common values."""
        found, uniform = np.empty_like(common), rng.random(common.size)
        order = np.argsort(common, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(common[order])) + 1):
            i, j, k = np.unravel_index(common[mine[0]], (_NODES,) * 3)
            total = np.cumsum(self.weight * ratio[0, i] * ratio[1, j] * ratio[2, k])
            found[mine] = np.searchsorted(total, uniform[mine] * total[-1])
        return found


def draw_regime(design: RegimeDesign, priors: Priors, size: int, rng: np.random.Generator) -> Draws:
    """Draw from the posterior of one regime alone, as one chain."""
    grid = RegimeGrid(design, priors)
    cells = rng.choice(grid.weight.size, size=size, p=grid.weight)
    return Draws.joined([grid.draw(cells, rng)], [grid.at_edge[cells].mean()], chains=1)


def sample_pooled(designs: Sequence[RegimeDesign], priors: Priors, size: int, seed: int) -> Draws:
    """Draw from the joint posterior of all regimes: `size` independent draws."""
    if not designs:
        return Draws.joined([], [])
    grids = [RegimeGrid(design, priors, _NOTHING) for design in designs]
    mass, ratios = _common_values(grids, priors.pooling)
    chosen = np.random.default_rng([seed, 5]).choice(mass.size, size=size, p=mass.ravel())
    drawn, edges = [], []
    for k, (grid, ratio) in enumerate(zip(grids, ratios, strict=True)):
        rng = np.random.default_rng([seed, k])
        cells = grid.choose(ratio, chosen, rng)
        drawn.append(grid.draw(cells, rng))
        edges.append(grid.at_edge[cells].mean())
    return Draws.joined(drawn, edges)


def _common_values(grids: Sequence[RegimeGrid], pooling: float) -> tuple[FloatArray, list[FloatArray]]:
    """Return the posterior of the common values on a grid, (G, G, G), and each regime's `RegimeGrid.ratio` on it."""
    nodes = np.tile(np.linspace(-_REACH, _REACH, _NODES), (3, 1))
    for _ in range(_ZOOMS):
        ratios = [grid.ratio(nodes, pooling) for grid in grids]
        log_mass = np.zeros((_NODES,) * 3)
        for grid, ratio in zip(grids, ratios, strict=True):
            pairs = ((grid.weight * ratio[0])[:, None, :] * ratio[1][None, :, :]).reshape(_NODES**2, -1)
            log_mass += np.log(np.maximum(pairs @ ratio[2].T, 1e-300)).reshape(log_mass.shape)
        log_mass = log_mass - 0.5 * sum(n**2 for n in np.meshgrid(*nodes, indexing="ij"))
        mass = np.exp(log_mass - log_mass.max())
        mass /= mass.sum()
        margins = np.array([mass.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))])
        centre = (margins * nodes).sum(axis=1, keepdims=True)
        spread = np.sqrt((margins * (nodes - centre) ** 2).sum(axis=1, keepdims=True))
        step = nodes[:, 1:2] - nodes[:, :1]
        if (spread > 0.9 * step).all():
            break
        nodes = centre + _REACH * np.maximum(spread, 0.4 * step) * np.linspace(-1.0, 1.0, _NODES)
    return mass, ratios


def _share_grid(design: RegimeDesign, lengths: FloatArray, priors: Priors) -> FloatArray:
    """Seed shares to integrate over: zoomed in until the posterior spans several grid points."""
    if not design.has_replicates:
        return np.zeros(1)
    # The seeds' variance over that of all drops: their share of the noise is hardly less.
    least = float(np.log(max(design.within / design.within_df, _SHARE_LEAST)))
    lowest = min(-_SHARE_LIMIT, least - _SHARE_MARGIN)
    low, high = lowest, _SHARE_LIMIT
    for _ in range(_SHARE_ZOOMS):
        logit = np.linspace(low, high, _MANY_SHARES if design.within_df < _FEW_FREEDOM else _SHARES)
        shares = 1.0 / (1.0 + np.exp(-logit))
        log_weight, _ = _tabulate(design, lengths[::5], shares, priors)
        mass = np.exp(log_weight - log_weight.max()).sum(axis=(1, 2, 3))
        mass /= mass.sum()
        centre = float(mass @ logit)
        spread = float(np.sqrt(mass @ (logit - centre) ** 2))
        step = logit[1] - logit[0]
        if spread > 0.8 * step:
            break
        reach = 4.0 * max(spread, 0.35 * step)
        low, high = max(centre - reach, lowest), min(centre + reach, _SHARE_LIMIT)
    return shares


def _tabulate(
    design: RegimeDesign,
    lengths: FloatArray,
    shares: FloatArray,
    priors: Priors,
    ratios: FloatArray = _RATIOS,
) -> tuple[FloatArray, FloatArray]:
    """Return log posterior weight and log noise sd of each cell, shape (R, L, ratios, noises)."""
    relative = design.variance(np.ones_like(shares), shares)
    values, rotated, residual, log_determinant = _project(design, lengths, relative)
    squared = (ratios**2)[:, None]
    shrunk = 1.0 + squared * values[:, :, None, :]
    misfit = residual[:, None, None] - (squared * rotated[:, :, None, :] ** 2 / shrunk).sum(-1)
    misfit = np.maximum(misfit, 1e-12 * residual[:, None, None])
    determinant = np.log(shrunk).sum(axis=-1) + log_determinant[:, None, None]
    share_prior = np.zeros_like(shares)
    if design.has_replicates:
        misfit = misfit + (design.within / shares)[:, None, None]
        determinant = determinant + (design.within_df * np.log(shares))[:, None, None]
        share_prior = np.log(shares * (1.0 - shares))  # a uniform share on an equally spaced logit grid
    freedom = design.count.sum() - sum(design.fixed) + design.within_df
    log_noise = 0.5 * np.log(misfit / freedom)[..., None] + _NOISES / np.sqrt(2.0 * freedom)
    log_weight = -freedom * log_noise - 0.5 * misfit[..., None] * np.exp(-2.0 * log_noise)
    log_weight += share_prior[:, None, None, None] - 0.5 * determinant[..., None]
    noise = np.exp(log_noise)
    for x in priors.standardised(Hyper(lengths[:, None, None], ratios[:, None] * noise, noise, shares)):
        log_weight -= 0.5 * x**2
    return log_weight, log_noise


def _project(
    design: RegimeDesign, lengths: FloatArray, relative: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues and rotated targets (R, L, m), squared length of the drops and log determinant (R,) of the rest."""
    # Fixed terms are projected out; `relative` (R, S) is the variance of recipes' means over that of one training.
    xx = np.einsum("rs,sij->rij", 1.0 / relative, design.xx)
    xy = (1.0 / relative) @ design.xy
    f = len(design.fixed)
    ff = xx[:, :f, :f] + np.diag(1.0 - np.array(design.fixed))
    solved = np.linalg.solve(ff, np.concatenate([xx[:, :f, f:], xy[:, :f, None]], axis=2))
    zz = xx[:, f:, f:] - xx[:, f:, :f] @ solved[:, :, :-1]
    zy = xy[:, f:] - (xx[:, f:, :f] @ solved[:, :, -1:])[:, :, 0]
    residual = (design.yy / relative).sum(axis=1) - (xy[:, :f] * solved[:, :, -1]).sum(axis=1)
    root = np.exp(0.5 * log_basis_variance(lengths))
    # With one stratum every seed share gives the same matrix up to a factor: decompose it once.
    single = relative.shape[1] == 1
    matrices = root[None, :, :, None] * (zz[:1] if single else zz)[:, None] * root[None, :, None, :]
    values, vectors = np.linalg.eigh(matrices)
    if single:
        values = values * (relative[0] / relative)[:, :, None]
    rotated = np.einsum("rlji,lj,rj->rli", np.broadcast_to(vectors, (len(zz), *vectors.shape[1:])), root, zy)
    log_determinant = (design.count * np.log(relative)).sum(axis=1) + np.linalg.slogdet(ff)[1]
    return np.maximum(values, 0.0), rotated, residual, log_determinant
