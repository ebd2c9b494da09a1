"""Exact costs of recipes: MACs and parameters as quadratic forms in the widths of the groups.

Every layer's input and output channels are affine in the widths, so its MACs and parameters are products of
two affine functions. The forms are added up once per network; a million recipes are then a matrix product.
1 MAC is one multiply-accumulate of a convolution or linear layer, for one input (1 "FLOP" of the papers).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from generate.inputs.networks import without_fast_attention
from generate.prune.cut import check_width
from generate.prune.dependency_graph import Group, IntArray, copy_network, with_values
from generate.prune.groups import check_arguments
from generate.prune.operations import Convolution, SkippedProducts, is_depthwise, sides
from generate.prune.verify import counted_macs, one_input, verify_cuts
from popstats.arrays import FloatArray
from popstats.errors import PlanError

# Of one recipe or of many, one column per group; or by group name.
Widths = ArrayLike | Mapping[str, ArrayLike]
LAYERS_SHOWN = 3
# Recipes in one block: block and product stay in a core's second-level cache, and memory stays flat.
ROWS_AT_ONCE = 1024
# Whole numbers up to here are exact in float64, and no partial sum of a form exceeds its value at full width.
EXACT_BELOW = 2**53


def group_lines(costs: CostModel) -> list[str]:
    """Return a table of the groups for a terminal: width, step, shares of the costs, the layers they tie."""
    longest = max(len(group.name) for group in costs.groups)
    lines = [f"{'group':<{longest}}  width  step    MACs  params  ties together"]
    for group in named_groups(costs):
        rest = len(group["layers"]) - LAYERS_SHOWN
        layers = ", ".join(group["layers"][:LAYERS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        shares = f"{group['macs_share']:7.2%} {group['params_share']:7.2%}"
        lines.append(f"{group['name']:<{longest}} {group['width']:6} {group['step']:5} {shares}  {layers}")
    return lines


def named_groups(costs: CostModel) -> list[dict[str, Any]]:
    """Return each group's name, width and share of the costs, as the tables print them."""
    macs, params = costs.shares()
    return [
        {
            "name": group.name,
            "width": group.width,
            "step": group.step,
            "layers": list(group.layers),
            "macs_share": round(float(macs[place]), 6),
            "params_share": round(float(params[place]), 6),
        }
        for place, group in enumerate(costs.groups)
    ]


@dataclass(frozen=True)
class QuadraticForm:
    """A cost as constant + linear @ u + u @ pairs @ u, in units u = widths / steps."""

    constant: int  # What no group touches.
    linear: IntArray  # (G,); Per unit of each group.
    pairs: IntArray  # (G, G); Upper triangular: per product of two groups' units.

    def at(self, units: FloatArray) -> FloatArray:
        """Return the cost of each row of `units`, shape (n, G), as whole numbers in float64, shape (n,)."""
        products = np.einsum("ng,ng->n", units, units @ self._pairs)
        return cast(FloatArray, products + units @ self._linear + self.constant)

    def augmented(self) -> IntArray:
        """Return the form as one upper triangular matrix over (1, units), shape (G + 1, G + 1)."""
        below = np.hstack([np.zeros_like(self.linear)[:, None], self.pairs])
        return np.vstack([[self.constant, *self.linear], below])

    @cached_property
    def _pairs(self) -> FloatArray:
        return self.pairs.astype(np.float64)

    @cached_property
    def _linear(self) -> FloatArray:
        return self.linear.astype(np.float64)


@dataclass(frozen=True)
class CostModel:
    """Exact MACs and parameters of every recipe of one network."""

    groups: tuple[Group, ...]  # The prunable groups, in the order of the columns of every width matrix.
    # macs_form, params_form: The costs in units of the groups' steps.
    macs_form: QuadraticForm
    params_form: QuadraticForm

    @cached_property
    def full_widths(self) -> IntArray:
        """Widths of the original network, shape (G,)."""
        return np.array([group.width for group in self.groups], dtype=np.int64)

    @cached_property
    def steps(self) -> IntArray:
        """Smallest change of each width, shape (G,)."""
        return np.array([group.step for group in self.groups], dtype=np.int64)

    @cached_property
    def least(self) -> IntArray:
        """Smallest width of each group, shape (G,)."""
        return np.array([-(-group.least // group.step) * group.step for group in self.groups], np.int64)

    @cached_property
    def original_macs(self) -> int:
        """MACs of the original network (F0)."""
        return int(self.macs(self.full_widths)[0])

    @cached_property
    def original_params(self) -> int:
        """Parameters of the original network (P0)."""
        return int(self.params(self.full_widths)[0])

    def macs(self, widths: Widths) -> IntArray:
        """Return the MACs of each recipe, shape (n,), for widths of shape (n, G) or (G,), or by group name."""
        return cast(IntArray, self._evaluate(widths, (self.macs_form,))[0])

    def params(self, widths: Widths) -> IntArray:
        """Return the number of parameters of each recipe, shape (n,), for widths as `macs` takes them."""
        return cast(IntArray, self._evaluate(widths, (self.params_form,))[0])

    def share(self, axis: str, widths: Widths) -> FloatArray:
        """Return the MACs or parameters of each recipe as a share of the original's, shape (n,)."""
        if axis == "macs":
            return self.macs(widths) / self.original_macs
        return self.params(widths) / self.original_params

    def both(self, widths: Widths) -> tuple[IntArray, IntArray]:
        """Return MACs and parameters of each recipe in one pass, each of shape (n,)."""
        macs, params = self._evaluate(widths, (self.macs_form, self.params_form))
        return macs, params

    def as_dict(self, network: nn.Module) -> dict[str, Any]:
        """Return the forms for the table's footer: cost = z' M z with z = (1, widths / steps), M upper triangular.

        And the network's layers, so that widths can be told layer by layer.
        """
        forms = {"macs": self.macs_form, "params": self.params_form}
        return {
            "groups": [group.name for group in self.groups],
            "widths": self.full_widths.tolist(),
            "steps": self.steps.tolist(),
            "least": self.least.tolist(),
            **{name: form.augmented().tolist() for name, form in forms.items()},
            "layers": layer_channels(network, self.groups),
        }

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Return the shares of MACs, and of parameters, in which each group's filters are involved, each (G,).

        What lies between two groups counts for both, so that the shares add up to more than 1.
        """
        without = np.where(np.eye(len(self.groups), dtype=bool), 0, self.full_widths) / self.steps
        macs, params = self.macs_form.at(without), self.params_form.at(without)
        return 1 - macs / self.original_macs, 1 - params / self.original_params

    def _evaluate(self, widths: Widths, forms: tuple[QuadraticForm, ...]) -> IntArray:
        rows = self._rows(widths)
        costs = np.empty((len(forms), len(rows)))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            here = slice(start, start + ROWS_AT_ONCE)
            units = self._units(rows[here])
            for place, form in enumerate(forms):
                costs[place, here] = form.at(units)
        return costs.astype(np.int64)

    def _rows(self, widths: Widths) -> NDArray[Any]:
        """Return widths as numbers, one row per recipe and one column per group."""
        names = [group.name for group in self.groups]
        if isinstance(widths, Mapping):
            if set(widths) != set(names):
                raise PlanError(
                    f"widths: expected one for each of {', '.join(names)}; got {', '.join(map(str, widths)) or 'none'}."
                )
            widths = np.array([widths[name] for name in names]).T
        rows = np.atleast_2d(np.asarray(widths))
        if rows.ndim != 2 or rows.shape[1] != len(names) or rows.dtype.kind not in "iuf":
            raise PlanError(
                f"widths: expected numbers in {len(names)} columns, one per group, got an array of shape {rows.shape} "
                f"and type {rows.dtype}."
            )
        return rows

    def _units(self, widths: NDArray[Any]) -> FloatArray:
        units = widths / self.steps if self._has_steps else widths.astype(np.float64)
        wrong = (units < 1) | (units > self.full_widths // self.steps)
        if self._has_steps or widths.dtype.kind == "f":
            wrong |= units != np.floor(units)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            check_width(self.groups[column], widths[row, column])
        return units

    @cached_property
    def _has_steps(self) -> bool:
        return bool((self.steps > 1).any())


def derive_costs(network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group]) -> CostModel:
    """Return the exact cost model of `network` for inputs of `input_shape`, proven on real cuts.

    Raises
    ------
    PlanError
        If a cut does not compute what the original computes without the removed filters, or costs something else than
        predicted; if a layer's channels are no affine function of the widths, or a cost is too large to be exact.
    """
    check_arguments(network, input_shape, groups)
    model = cost_forms(network, input_shape, groups)
    verify_cuts(network, input_shape, model.groups, model.both)
    return model


def cost_forms(network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group]) -> CostModel:
    """Return the costs as the groups say, without proof."""
    shell = with_values(network)
    positions, counted = count_positions(shell, input_shape)
    modules = dict(shell.named_modules())
    macs = np.zeros((len(groups) + 1, len(groups) + 1), np.int64)
    params = np.zeros_like(macs)
    for name, applications in positions.items():
        macs += applications * _weight_form(name, modules[name], groups)
    for place, group in enumerate(groups, start=1):
        macs[0, place] += group.step * sum(member.macs for member in group.members)  # attention products
    for name, parameter in shell.named_parameters():  # one that two layers share is counted once
        params += _parameter_form(name, parameter, modules, groups)
    # What is no layer's product (attention, recurrence, functional layers) has channels that all stay.
    macs[0, 0] += counted - CostModel(tuple(groups), _as_form(macs), _as_form(params)).original_macs
    model = CostModel(tuple(groups), _as_form(macs), _as_form(params))
    check_exact(model, type(network).__name__)
    return model


class _Positions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often each layer's kernel is applied."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        weighted = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | Convolution)]
        held = [(name, module._parameters.get("weight")) for name, module in reversed(weighted)]
        self._layers = {id(weight): name for name, weight in held if weight is not None}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        layer = self._layers.get(id(args[1])) if len(args) > 1 else None
        name = func.overloadpacket.__name__
        if layer is not None and (name == "linear" or name.startswith("conv")):
            weight = args[1]
            transposed = "transpose" in name
            # Rows of a linear layer and a convolution are its outputs, those of a transposed one its inputs.
            values = args[0] if transposed else result
            self.counts[layer] += values.numel() // weight.shape[0]
        return result


def count_positions(shell: nn.Module, input_shape: tuple[int, ...]) -> tuple[Counter[str], int]:
    """Return how often each layer's kernel is applied to one input, and all MACs by torch's own counter."""
    counted = counted_macs(shell, input_shape)
    with SkippedProducts(), _Positions(shell) as positions, torch.inference_mode(), without_fast_attention():
        shell.eval()(one_input(shell, input_shape))
    return positions.counts, counted


def _weight_form(name: str, module: nn.Module, groups: Sequence[Group]) -> IntArray:
    """Return the weights of one layer as an augmented form, shape (G + 1, G + 1)."""
    channels_in, channels_out = sides(module)
    outputs = _channels(name, "out", channels_out, groups)
    kernel = math.prod(getattr(module, "kernel_size", ()))
    if is_depthwise(module):
        return kernel * np.outer(outputs, _one(groups))
    inputs = _channels(name, "in", channels_in, groups)
    # Widths are multiples of the step, and a grouped convolution's step of its groups: the division is exact.
    return kernel * np.outer(outputs, inputs) // int(getattr(module, "groups", 1))


def _parameter_form(
    name: str, parameter: nn.Parameter, modules: Mapping[str, nn.Module], groups: Sequence[Group]
) -> IntArray:
    """Return the number of values of one parameter as an augmented form."""
    owner, _, attribute = name.rpartition(".")
    module = modules[owner]
    if isinstance(module, nn.Linear | Convolution) and attribute in ("weight", "bias"):
        if attribute == "weight":
            return _weight_form(owner, module, groups)
        return np.outer(_channels(owner, "out", len(parameter), groups), _one(groups))
    places = [m for group in groups for m in group.members if m.layer in (owner, name) and m.side == "out"]
    channels = parameter.shape[places[0].axis] if places and parameter.dim() else 1
    each = parameter.numel() // channels
    return each * np.outer(
        _channels(places[0].layer if places else name, "out", channels, groups), _one(groups)
    )


def _channels(layer: str, side: str, channels: int, groups: Sequence[Group]) -> IntArray:
    """Return the channels of one side of a layer as a constant and what each unit of each group adds, shape (G + 1,)."""
    per_unit = [
        group.step * sum(m.multiplicity for m in group.members if (m.layer, m.side) == (layer, side))
        for group in groups
    ]
    driven = sum(each * group.width // group.step for each, group in zip(per_unit, groups, strict=True))
    return np.array([channels - driven, *per_unit], dtype=np.int64)


def _one(groups: Sequence[Group]) -> IntArray:
    return np.array([1, *[0] * len(groups)], dtype=np.int64)


def layer_channels(network: nn.Module, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return each layer's outputs, the group it produces, and how many outputs go with one channel of each group.

    Of pruned weights, which leave all outputs, nothing is returned.
    """
    if not any(group.members for group in groups):
        return {}
    layers: dict[str, dict[str, Any]] = {
        name: {"of": sides(module)[1], "group": None, "per_channel": {}}
        for name, module in copy_network(network).named_modules()
        if isinstance(module, Convolution | nn.Linear)
    }
    for group in groups:
        for member in group.members:
            if member.side == "out" and member.layer in group.layers and member.layer in layers:
                layer, name = layers[member.layer], group.name
                layer["group"] = name
                layer["per_channel"][name] = layer["per_channel"].get(name, 0) + member.multiplicity
    return layers


def _as_form(augmented: IntArray) -> QuadraticForm:
    folded = np.triu(augmented) + np.tril(augmented, -1).T
    return QuadraticForm(int(folded[0, 0]), folded[0, 1:], folded[1:, 1:])


def check_exact(model: CostModel, name: str) -> None:
    """Refuse costs that are no costs of real layers, or too large for exact arithmetic."""
    for form in (model.macs_form, model.params_form):
        if form.constant < 0 or (form.linear < 0).any() or (form.pairs < 0).any():
            raise PlanError(
                f"network {name}: a layer has fewer channels than its groups drive, so it cannot be pruned."
            )
    if max(model.original_macs, model.original_params) >= EXACT_BELOW:
        raise PlanError(f"network {name}: {model.original_macs} MACs are too many to count exactly (2^53).")
