"""Exact costs of recipes: MACs and parameters as quadratic forms in the widths of the groups.

Every layer's input and output channels are affine in the widths, so its MACs and parameters are products of
two affine functions. The forms are added up once per network; a million recipes are then a matrix product.
1 MAC is one multiply-accumulate of a convolution or linear layer, for one input (1 "FLOP" of the papers).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from generate.prune.dependency_graph import Convolution, IntArray, blank_input, is_depthwise, on_meta_device
from generate.prune.groups import Group
from generate.prune.slicing import remove_filters
from popstats.errors import PlanError

LAYERS_SHOWN, GROUPS_SHOWN = 3, 3


def group_lines(costs: CostModel) -> list[str]:
    """Return a table of the groups for a terminal: width, step, shares of the costs, the layers they tie."""
    longest = max(len(group.name) for group in costs.groups)
    lines = [f"{'group':<{longest}}  width  step    MACs  params  ties together"]
    for group in named_groups(costs):
        shares = f"{group['macs_share']:7.2%} {group['params_share']:7.2%}"
        name = f"{group['name']:<{longest}}"
        lines.append(f"{name} {group['width']:6} {group['step']:5} {shares}  {_some(group['layers'])}")
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


def _some(layers: Sequence[str]) -> str:
    rest = len(layers) - LAYERS_SHOWN
    return ", ".join(layers[:LAYERS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


ROWS_AT_ONCE = 1024


"""Recipes in one block: block and product stay in a core's second-level cache, and memory stays flat."""


EXACT_BELOW = 2**53


"""Whole numbers up to here are exact in float64, and no partial sum of a form exceeds its value at full width."""


FloatArray = NDArray[np.float64]


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
    def original_macs(self) -> int:
        """MACs of the original network (F0)."""
        return int(self.macs(self.full_widths)[0])

    @cached_property
    def original_params(self) -> int:
        """Parameters of the original network (P0)."""
        return int(self.params(self.full_widths)[0])

    def macs(self, widths: ArrayLike) -> IntArray:
        """Return the MACs of each recipe."""
        # widths (n, G) or (G,) -> (n,)
        return cast(IntArray, self._evaluate(widths, (self.macs_form,))[0])

    def params(self, widths: ArrayLike) -> IntArray:
        """Return the number of parameters of each recipe, shape (n,), for widths of shape (n, G) or (G,)."""
        return cast(IntArray, self._evaluate(widths, (self.params_form,))[0])

    def both(self, widths: ArrayLike) -> tuple[IntArray, IntArray]:
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
            **{name: _augmented(form).tolist() for name, form in forms.items()},
            "layers": _layers(network, self.groups),
        }

    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Return the shares of MACs, and of parameters, that each group's filters take part in, each (G,).

        What lies between two groups counts for both, so that the shares add up to more than 1.
        """
        without = np.where(np.eye(len(self.groups), dtype=bool), 0, self.full_widths)
        macs, params = self.both(without)
        return 1 - macs / self.original_macs, 1 - params / self.original_params

    def _evaluate(self, widths: ArrayLike, forms: tuple[QuadraticForm, ...]) -> IntArray:
        rows = np.atleast_2d(np.asarray(widths))
        if rows.shape[1] != len(self.groups):
            raise PlanError(f"widths: expected {len(self.groups)} columns, one a group, got {rows.shape[1]}.")
        costs = np.empty((len(forms), len(rows)))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            here = slice(start, start + ROWS_AT_ONCE)
            units = self._units(rows[here])
            for place, form in enumerate(forms):
                costs[place, here] = form.at(units)
        return costs.astype(np.int64)

    def _units(self, widths: NDArray[Any]) -> FloatArray:
        return widths / self.steps if self._has_steps else widths.astype(np.float64)

    @cached_property
    def _has_steps(self) -> bool:
        return bool((self.steps > 1).any())


@dataclass(frozen=True)
class _Affine:
    """Channels of one side of one layer: constant + per_unit @ u."""

    constant: int
    per_unit: IntArray


def derive_costs(network: nn.Module, input_shape: tuple[int, int, int], groups: Sequence[Group]) -> CostModel:
    """Return the exact cost model of `network` for inputs of `input_shape` (channels, height, width).

    Raises
    ------
    PlanError
        If a layer's channels are no affine function of the widths, or a cost is too large to be exact.
    """
    shell = on_meta_device(network)
    positions = _count_positions(shell, input_shape)
    width = len(groups) + 1
    macs, params = np.zeros((width, width), np.int64), np.zeros((width, width), np.int64)
    for name, module in shell.named_modules():
        if isinstance(module, nn.Linear | Convolution):
            product, biases = _layer_forms(name, module, groups)
            macs += positions.get(name, 0) * product
            params += product + biases
        else:
            params += _channelwise_form(name, module, groups)
    model = CostModel(tuple(groups), _as_form(macs), _as_form(params))
    _check_exact(model, type(network).__name__)
    _check_on_a_cut(model, shell, input_shape)
    return model


def _count_positions(shell: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return how often each layer's kernel is applied to one input, over all its calls."""
    counts: Counter[str] = Counter()

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        transposed = getattr(module, "transposed", False)
        channels_in, channels_out = _sides(module)
        counts[name] += inputs[0].numel() // channels_in if transposed else output.numel() // channels_out

    hooks = [
        module.register_forward_hook(partial(record, name))
        for name, module in shell.named_modules()
        if isinstance(module, nn.Linear | Convolution)
    ]
    with torch.no_grad():
        shell(blank_input(shell, input_shape))
    for hook in hooks:
        hook.remove()
    return counts


def _check_on_a_cut(model: CostModel, shell: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Cut the shell to half of every group, run it, and compare its costs with the forms.

    A network that does something with its channels which the groups do not know fails here, before anything is
    trained.
    """
    name = type(shell).__name__
    widths = (model.full_widths // model.steps + 1) // 2 * model.steps
    remove_filters(shell, model.groups, _first_of_each_block(model.groups, widths))
    try:
        positions = _count_positions(shell, input_shape)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise PlanError(
            f"network {name} does not run any more once its groups are cut to half: {error}. "
            "Protect the layers in question with `keep`."
        ) from error
    macs = sum(positions[key] * _weights(module) for key, module in shell.named_modules() if key in positions)
    params = sum(parameter.numel() for parameter in shell.parameters())
    if (macs, params) != (model.macs(widths)[0], model.params(widths)[0]):
        raise PlanError(
            f"network {name}: cut to half it has {macs} MACs and {params} parameters, where its groups say "
            f"{model.macs(widths)[0]} and {model.params(widths)[0]}. It cannot be costed, so it is refused."
        )


def _first_of_each_block(groups: Sequence[Group], widths: IntArray) -> dict[str, IntArray]:
    kept = {}
    for group, width in zip(groups, widths.tolist(), strict=True):
        by_block = np.argsort(group.blocks, kind="stable").reshape(group.step, -1)
        kept[group.name] = by_block[:, : width // group.step].ravel()
    return kept


def _weights(module: nn.Module) -> int:
    return cast(Tensor, module.weight).numel()


def _sides(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    convolution = cast(Convolution, module)
    return convolution.in_channels, convolution.out_channels


def _layer_forms(name: str, module: nn.Module, groups: Sequence[Group]) -> tuple[IntArray, IntArray]:
    """Return the weights, and the biases, of one layer as augmented forms, shape (G + 1, G + 1)."""
    channels_in, channels_out = _sides(module)
    outputs = _affine(name, "out", channels_out, groups)
    biases = _outer(outputs, _one(groups)) * int(module.bias is not None)
    kernel = math.prod(getattr(module, "kernel_size", ()))
    if is_depthwise(module):
        return kernel * _outer(outputs, _one(groups)), biases
    inputs = _affine(name, "in", channels_in, groups)
    # Widths are multiples of the step, and a grouped convolution's step of its groups: the division is exact.
    return kernel * _outer(outputs, inputs) // int(getattr(module, "groups", 1)), biases


def _channelwise_form(name: str, module: nn.Module, groups: Sequence[Group]) -> IntArray:
    """Return the parameters that a module holds itself, a fixed number for each of its channels."""
    total = np.zeros((len(groups) + 1, len(groups) + 1), np.int64)
    for parameter_name, parameter in module.named_parameters(recurse=False):
        layer = f"{name}.{parameter_name}".lstrip(".")
        owner = name if any(m.layer == name for group in groups for m in group.members) else layer
        channels = _affine(owner, "out", parameter.numel(), groups)
        total += _outer(channels, _one(groups))
    return total


def _affine(layer: str, side: str, channels: int, groups: Sequence[Group]) -> _Affine:
    per_unit = np.zeros(len(groups), np.int64)
    for place, group in enumerate(groups):
        per_unit[place] = group.step * sum(
            m.multiplicity for m in group.members if m.layer == layer and m.side == side
        )
    units = np.array([group.width // group.step for group in groups], dtype=np.int64)
    return _Affine(channels - int(per_unit @ units), per_unit)


def _one(groups: Sequence[Group]) -> _Affine:
    return _Affine(1, np.zeros(len(groups), np.int64))


def _outer(left: _Affine, right: _Affine) -> IntArray:
    product = np.outer(
        np.concatenate([[left.constant], left.per_unit]), np.concatenate([[right.constant], right.per_unit])
    )
    return cast(IntArray, product)


def _layers(network: nn.Module, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return each layer's outputs, the group it produces, and how many outputs go with one channel of each group."""
    layers: dict[str, dict[str, Any]] = {}
    for name, module in network.named_modules():
        if isinstance(module, Convolution | nn.Linear):
            outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            layers[name] = {"of": outputs, "group": None, "per_channel": {}}
    for group in groups:
        for member in group.members:
            if member.side == "out" and member.layer in group.layers and member.layer in layers:
                layer = layers[member.layer]
                layer["group"] = group.name
                layer["per_channel"][group.name] = (
                    layer["per_channel"].get(group.name, 0) + member.multiplicity
                )
    return layers


def _augmented(form: QuadraticForm) -> IntArray:
    """Return the form as one upper triangular matrix over (1, units), shape (G + 1, G + 1)."""
    return np.block(
        [[np.array([[form.constant]]), form.linear[None]], [np.zeros_like(form.linear)[:, None], form.pairs]]
    )


def _as_form(augmented: IntArray) -> QuadraticForm:
    folded = np.triu(augmented) + np.tril(augmented, -1).T
    return QuadraticForm(int(folded[0, 0]), folded[0, 1:], folded[1:, 1:])


def _check_exact(model: CostModel, name: str) -> None:
    for form in (model.macs_form, model.params_form):
        if form.constant < 0 or (form.linear < 0).any() or (form.pairs < 0).any():
            raise PlanError(
                f"network {name}: a layer has fewer channels than its groups drive; it is refused."
            )
    if max(model.original_macs, model.original_params) >= EXACT_BELOW:
        raise PlanError(f"network {name}: {model.original_macs} MACs are too many to count exactly (2^53).")
