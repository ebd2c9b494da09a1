"""How labels pass through a network: one rule for each kind of operation, read off a real forward pass.

What no rule describes (matrix products of two activations, sorting, recurrence) keeps its channels: they are pinned, with
the reason. So a group that is found is right wherever the rules are, and what the rules do not know stays whole.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from generate.prune.attention import attention_modules, head_sizes
from generate.prune.labels import STAYS, Labels, compact, spread

Convolution = nn.modules.conv._ConvNd
Normalisation = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.PReLU,
)

# Larger parameters that are used like features are taken for constants; positions of ViT-H/14 have 1.75 million values.
LARGEST_LOOSE = 2**21

_SPATIAL = re.compile(
    r"_?(?:adaptive_)?(?:max_pool|max_unpool|avg_pool|upsample_\w+?|reflection_pad|replication_pad)(\d)d\w*"
)
_SAME_SHAPE = {
    "contiguous", "clone", "to", "_to_copy", "detach", "alias", "lift_fresh", "type_as", "dropout", "native_dropout",
    "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "zeros_like", "ones_like", "empty_like", "full_like",
    "rand_like", "randn_like", "bernoulli", "zero", "fill", "normal", "uniform", "log_sigmoid",
}  # fmt: skip
_MOVES = {
    "view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as", "flatten", "unflatten", "permute",
    "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "squeeze", "unsqueeze", "expand", "expand_as", "repeat",
    "repeat_interleave", "flip", "pixel_shuffle", "pixel_unshuffle", "numpy_T", "mT", "mH", "ravel", "broadcast_to",
}  # fmt: skip
_RESHAPES = {
    "view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as", "flatten", "unflatten", "ravel",
}  # fmt: skip
_REDUCTIONS = {
    "mean", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp", "argmax", "argmin", "any", "all", "var_mean",
    "std_mean", "nansum", "nanmean", "count_nonzero", "median", "aminmax",
}  # fmt: skip
_ALONG = {
    "softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin",
}  # fmt: skip
# What sums over channels is the same whether some are zero or gone.
SUMS = {"sum", "norm", "linalg_vector_norm", "frobenius_norm"}
# Under inference mode these would be taken apart step by step in time.
_WHOLE = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_ATTENTION = "scaled_dot_product_attention"
_WEIGHTED = {
    "linear", "convolution", "_convolution", *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3))
}  # fmt: skip
_PRODUCTS = _WEIGHTED | {"addmm", "mm", "bmm", "matmul"}
LARGE_OPERANDS = 2**20  # values of all operands together


def is_depthwise(module: nn.Module) -> bool:
    """Return whether each output channel of a convolution sees one input channel that no other block sees."""
    return isinstance(module, Convolution) and module.groups > 1 and module.groups == module.in_channels


def produces_channels(module: nn.Module) -> bool:
    """Return whether the output channels of `module` are its own, not its inputs passed on."""
    return isinstance(module, nn.Linear | Convolution) and not is_depthwise(module)


class LabelledNetwork:
    """The labels of a network's parameters and buffers, by layer."""

    def __init__(self, network: nn.Module) -> None:
        self.labels = Labels()
        self.rows: dict[str, Tensor] = {}  # by layer: labels of its output channels, shape (channels,)
        self.columns: dict[str, Tensor] = {}  # by layer: labels of its input channels
        self.loose: dict[str, Tensor] = {}  # by parameter or buffer of no standard layer: one for each value
        self.weights: dict[int, str] = {}  # by id of a weight: the (first) layer that it belongs to
        self._own: dict[int, Tensor] = {}
        # By attention module, of each product: one label per head.
        self.heads: dict[str, list[Tensor]] = defaultdict(list)
        self.head_macs: Counter[str] = Counter()  # of all products, over the batch
        self.attending: list[tuple[str, set[int]]] = []  # attention modules that run, sizes of their heads
        self.read: dict[str, Tensor] = {}  # by attention module: labels of the first features that it gets
        for name, module in network.named_modules():
            self._label_layer(name, module)
        for name, module in attention_modules(network).items():
            attend = partial(self._attend, (name, set(head_sizes(module).values())))
            module.register_forward_pre_hook(attend, with_kwargs=True)
            module.register_forward_hook(lambda *_: self.attending.pop() and None)
        self._held = [*network.named_parameters(), *network.named_buffers()]  # alive, so that ids stay theirs
        self._names = {id(t): name for name, t in self._held if t.is_floating_point()}
        self._layers = int(self.labels.new(1))  # labels of layers lie below

    def _label_layer(self, name: str, module: nn.Module) -> None:
        weight = module._parameters.get("weight")
        if isinstance(module, nn.Linear | Convolution) and weight is not None:
            self._label_weight(name, module, weight)
        elif isinstance(module, Normalisation):
            self._label_channelwise(name, module)

    def _label_weight(self, name: str, module: nn.Module, weight: Tensor) -> None:
        first = self.weights.setdefault(id(weight), name)
        channels_in, channels_out = sides(module)
        if first == name:
            self.rows[name] = self.labels.new(channels_out)
            self.columns[name] = self.labels.new(channels_in)
        else:  # one parameter in two layers
            self.rows[name], self.columns[name] = self.rows[first], self.columns[first]
        bias = module._parameters.get("bias")
        if bias is not None:
            self._hold(bias, self.rows[name])

    def _label_channelwise(self, name: str, module: nn.Module) -> None:
        count = channel_count(module)
        if count is None:
            return
        self.rows[name] = self.labels.new(count)
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in own:
            if tensor.shape == (count,):
                self._hold(tensor, self.rows[name])
        if not own:  # without a parameter an operation cannot tell which layer it belongs to
            module.register_forward_pre_hook(partial(self._meet, self.rows[name]))

    def _meet(self, rows: Tensor, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = cast(Tensor, inputs[0])
        axis = images.dim() - 1 if isinstance(module, nn.LayerNorm | nn.RMSNorm) else 1
        labels = self.of(images)
        if labels is None or labels.shape[axis] != len(rows):
            self.labels.pin(rows, "what it normalises has other channels")
        else:
            self.labels.tie(rows, self.labels.along(labels, axis))

    def _attend(self, entry: tuple[str, set[int]], module: nn.Module, *inputs: Any) -> None:
        self.attending.append(entry)
        found = (self.of(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))
        self.read[entry[0]] = next((labels for labels in found if labels is not None), torch.tensor([STAYS]))

    def _hold(self, tensor: Tensor, labels: Tensor) -> None:
        self.labels.tie(self._own.setdefault(id(tensor), labels), labels)

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the labels of a tensor's values, in its shape; None for constants."""
        found = getattr(tensor, "_filter_labels", None)
        if found is not None or tensor.numel() == 0:
            return cast("Tensor | None", found)
        layer = self.weights.get(id(tensor))
        if layer is not None:
            for held in (self.rows, self.columns):
                self.labels.pin(held[layer], "its weight is used outside its layer")
            return None
        return self._own[id(tensor)] if id(tensor) in self._own else self._loose(tensor)

    def is_loose(self, labels: Tensor) -> bool:
        """Return whether these are values of parameters that have met no layer yet."""
        return bool((self.labels.find(compact(labels)) >= self._layers).all())

    def _loose(self, tensor: Tensor) -> Tensor | None:
        name = self._names.get(id(tensor))
        if name is None or tensor.numel() > LARGEST_LOOSE:
            return None
        if name not in self.loose:
            self.loose[name] = self.labels.new(tensor.numel()).reshape(tensor.shape)
        return self.loose[name]


def sides(module: nn.Module) -> tuple[int, int]:
    """Return the input and output channels of a linear layer or convolution."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    convolution = cast(Convolution, module)
    return convolution.in_channels, convolution.out_channels


def channel_count(module: nn.Module) -> int | None:
    """Return the channels of a normalisation (or PReLU) with something for each of them, else None."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return module.normalized_shape[0] if len(module.normalized_shape) == 1 else None
    if isinstance(module, nn.PReLU):
        return module.num_parameters if module.num_parameters > 1 else None
    return int(getattr(module, "num_channels", None) or cast(Any, module).num_features)


class SkippedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets large products return zeros, for passes of which only the shapes matter."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in args if isinstance(leaf, Tensor)]
        if func.overloadpacket.__name__ in _PRODUCTS and sum(t.numel() for t in tensors) > LARGE_OPERANDS:
            shapes = [leaf.to("meta") if isinstance(leaf, Tensor) else leaf for leaf in args]
            return torch.zeros_like(func(*shapes, **(kwargs or {})), device=tensors[0].device)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels what every operation of a forward pass returns."""

    def __init__(self, network: LabelledNetwork) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network, self.labels = network, network.labels
        self.called: set[str] = set()  # layers whose weights were used

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        name = name.rstrip("_") if not name.startswith("__") else name
        rule = self._rule(name, func)
        if rule is None and name not in _WHOLE and not name.startswith("new_"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if rule is not None:
            found = rule(_Call(func, name, args, kwargs, tensors, result))
            _attach(result, found)
        elif not name.startswith("new_"):
            self._pin(tensors, name)
            _attach(result, None)
        return result

    def _rule(self, name: str, func: Any) -> Callable[[_Call], Any] | None:
        known = _RULES.get(name)
        if known is None and _SPATIAL.fullmatch(name):
            known = Operations.spatial
        if known is None and _is_pointwise(func.overloadpacket):
            known = Operations.pointwise
        return None if known is None else known.__get__(self)

    def _pin(self, tensors: Sequence[Tensor], name: str) -> None:
        for tensor in tensors:
            labels = self.network.of(tensor)
            if labels is not None:
                self.labels.pin(labels, f"{name.strip('_').replace('_', ' ')} mixes its channels")

    def _of(self, tensor: Tensor) -> Tensor:
        labels = self.network.of(tensor)
        return torch.tensor(STAYS).expand(tensor.shape) if labels is None else labels

    def _along(self, tensor: Tensor, dimension: int) -> Tensor:
        return self.labels.along(self._of(tensor), dimension)

    # Layers

    def weighted(self, call: _Call) -> Tensor | None:
        """Label the rows of convolutions and linear layers as new filters; their columns go with what they read."""
        images, weight = call["input"], call["weight"]
        axis = images.dim() - 1 if call.name == "linear" else images.dim() - weight.dim() + 1
        layer = self.network.weights.get(id(weight))
        if layer is None:
            self._pin(call.tensors, call.name)
            return None
        read, rows = self._along(images, axis), self.network.rows[layer]
        if not images.numel():  # an expert that no image was sent to
            self.labels.pin(rows, "no image reaches it")
        groups = call.get("groups", 1)
        if 1 < groups == len(read):
            self.labels.tie(rows, read.repeat_interleave(len(rows) // groups))
        else:
            self.labels.tie(self.network.columns[layer], read)
        if call.get("bias") is not None:
            self.labels.tie(rows, self._of(call["bias"]))
        self.called.add(layer)
        return spread(rows, axis, call.result.shape)

    def channelwise(self, call: _Call) -> Tensor:
        """Tie what normalisations and PReLU hold for each channel."""
        images = call["self"] if call.name == "prelu" else call["input"]
        last = call.name in ("layer_norm", "rms_norm")
        read = self._along(images, images.dim() - 1 if last else min(1, images.dim() - 1))
        for name in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(call.get(name), Tensor) and call[name].numel() > 1:
                self.labels.tie(read, self._of(call[name]))
        if call.get("num_groups", 1) > 1:  # whole groups go: the others' statistics are what they were
            self.labels.along(read.reshape(call["num_groups"], -1), 0)
        return spread(read, images.dim() - 1 if last else min(1, images.dim() - 1), images.shape)

    def layer_norm(self, call: _Call) -> Tensor | None:
        """Tie what normalisations over the last axis hold; over several axes at once is beyond filters."""
        if len(call["normalized_shape"]) > 1:
            self._pin(call.tensors, call.name)
            return None
        labels = self._of(call["input"])
        if not self.network.attending or not self._goes_as_slices(labels, [labels.dim() - 1]):
            return self.channelwise(call)
        self._pin(call.tensors[1:], call.name)  # all heads have the same scales
        return labels

    def spatial(self, call: _Call) -> Any:
        """Pass pooling, padding and resizing, which take each channel for itself."""
        match = cast(re.Match[str], _SPATIAL.fullmatch(call.name))
        images, *places = call.tensors  # unpooling reads where its values came from
        axis = images.dim() - int(match[1]) - 1
        read = self._along(images, axis)
        for tensor in places:
            self.labels.tie(read, self._along(tensor, axis))
        return _each(call.result, lambda out: spread(read, axis, out.shape))

    # Values

    def pointwise(self, call: _Call) -> Any:
        """Tie what meets value by value; what serves many channels stays."""
        shape = (call.result if isinstance(call.result, Tensor) else call.result[0]).shape
        labels, *others = (self._spread(tensor) for tensor in call.tensors)
        for other in others:
            labels = self._join(labels, other)
        return _each(call.result, lambda out: _pad(labels, len(shape)).expand(shape))

    def _spread(self, tensor: Tensor) -> Tensor:
        """Return labels of values, of size 1 where what stays is the same all along."""
        labels = self._of(tensor)
        same = [d for d in range(tensor.dim()) if tensor.stride(d) == 0 < tensor.shape[d]]
        for dimension in same if same and not self.labels.find(compact(labels)).any() else ():
            labels = labels.narrow(dimension, 0, 1)
        return labels

    def _join(self, left: Tensor, right: Tensor) -> Tensor:
        dimensions = max(left.dim(), right.dim())
        left, right = _pad(left, dimensions), _pad(right, dimensions)
        for one, other in ((left, right), (right, left)):
            wider = [d for d in range(dimensions) if one.shape[d] == 1 < other.shape[d]]
            if any(self.labels.varies(other, dimension) for dimension in wider):
                self.labels.pin(one, "it is spread over other channels")
                return other
        self.labels.tie(left, right)
        return torch.broadcast_tensors(left, right)[0]  # type: ignore[no-untyped-call,no-any-return]

    def same_shape(self, call: _Call) -> Any:
        """Pass the first tensor's labels on."""
        labels = self.network.of(call.tensors[0])
        return _each(
            call.result, lambda out: labels if labels is not None and labels.shape == out.shape else None
        )

    # Moves

    def moves(self, call: _Call) -> Any:
        """Move labels as values are moved."""
        labels = self._of(call.tensors[0])
        if call.name in _RESHAPES:
            moved = labels.reshape(call.result.shape)
            if not self._shapes_heads(labels, moved):
                self._straighten(moved)
            return moved
        if call.name in ("view_as", "reshape_as", "expand_as"):
            return labels.expand(call.result.shape)
        arguments = [labels if argument is call.tensors[0] else argument for argument in call.args]
        return call.func(*arguments, **call.kwargs)

    def _shapes_heads(self, before: Tensor, after: Tensor) -> bool:
        """Return whether an attention module takes channels apart into heads, or moves them."""
        if not self.network.attending:
            return False
        _, sizes = self.network.attending[-1]
        axes = self.labels.axes(after)
        return len(self.labels.axes(before)) > 1 or any(after.shape[axis] in sizes for axis in axes)

    def _straighten(self, labels: Tensor) -> None:
        """Where a reshape spreads filters over several axes: only whole slices of the longest can go."""
        axes = self.labels.axes(labels)
        for axis in sorted(axes, key=lambda axis: labels.shape[axis])[:-1]:
            self.labels.tie_across(labels, axis)

    def pads(self, call: _Call) -> Tensor:
        """Pad places, which belong to their channels, and channels, with what no recipe removes."""
        labels, pad = self._of(call.tensors[0]), call["pad"]
        for place in range(len(pad) // 2):
            dimension, ends = labels.dim() - 1 - place, pad[2 * place : 2 * place + 2]
            if self.labels.varies(labels, dimension):
                labels = torch.constant_pad_nd(labels, [0, 0] * place + ends, STAYS)
            else:
                size = labels.shape[dimension] + sum(ends)
                labels = labels.narrow(dimension, 0, 1).expand(
                    *labels.shape[:dimension], size, *labels.shape[dimension + 1 :]
                )
        return labels

    def shuffles(self, call: _Call) -> Tensor:
        """Shuffle labels; the same place of every block goes together."""
        labels = self._of(call.tensors[0])
        self._tie_parts(labels, 1, call["groups"])
        return torch.channel_shuffle(labels.contiguous(), call["groups"])

    def _tie_parts(self, labels: Tensor, dimension: int, count: int) -> None:
        shape = labels.shape
        parts = labels.reshape(*shape[:dimension], count, -1, *shape[dimension + 1 :])
        self.labels.tie_across(parts, dimension)

    def chunks(self, call: _Call) -> Any:
        """Tie the same place of every part, where there are equal parts of however many channels."""
        labels, dimension = self._of(call.tensors[0]), call["dim"] % call.tensors[0].dim()
        count = 2 if call.name == "glu" else call["chunks"]
        if self.labels.varies(labels, dimension):
            if labels.shape[dimension] % count:
                return self._refused(call)
            self._tie_parts(labels, dimension, count)
        return self._parts(call, labels, dimension)

    def splits(self, call: _Call) -> Any:
        """Pin what parts of fixed sizes, and single places, cut through."""
        labels, dimension = self._of(call.tensors[0]), call.get("dim", 0) % call.tensors[0].dim()
        outputs = [call.result] if isinstance(call.result, Tensor) else call.result
        whole = len(outputs) == 1 and outputs[0].shape == labels.shape
        if not whole and self.network.is_loose(labels):
            self.labels.tie_across(labels, dimension)
        elif not whole and self.labels.varies(labels, dimension) and not self.network.attending:
            return self._refused(call)
        return self._parts(call, labels, dimension)

    def _parts(self, call: _Call, labels: Tensor, dimension: int) -> Any:
        if not self.labels.varies(labels, dimension) and isinstance(call.result, Tensor):
            narrow = labels.narrow(dimension, 0, 1)
            if call.result.dim() < labels.dim():
                return narrow.squeeze(dimension)
            return narrow.expand(call.result.shape)
        if call.name == "glu":
            return labels.narrow(dimension, 0, call.result.shape[dimension])
        arguments = [labels if argument is call.tensors[0] else argument for argument in call.args]
        return call.func(*arguments, **call.kwargs)

    def _refused(self, call: _Call) -> Any:
        self._pin(call.tensors, call.name)
        return _each(call.result, lambda out: None)

    def rolls(self, call: _Call) -> Any:
        """Pin what rolls over an edge, for its order would change."""
        labels = self._of(call.tensors[0])
        dimensions = call.get("dims", []) or range(labels.dim())
        if any(self.labels.varies(labels, dimension) for dimension in dimensions):
            return self._refused(call)
        return labels

    def joins(self, call: _Call) -> Tensor:
        """Join channels beside channels, or places whose channels are the same."""
        parts, dimension = [self._of(part) for part in call.tensors if part.numel()], call.get("dim", 0)
        joined = torch.cat(parts, dimension)
        dimension %= joined.dim()
        if any(self.labels.axes(part) not in ([], [dimension]) for part in parts):
            self.labels.tie_across(joined, dimension)
        return joined

    def stacks(self, call: _Call) -> Tensor:
        """Tie what is stacked."""
        dimension = call.get("dim", 0)
        labels = torch.stack([self._of(part) for part in call.tensors], dimension)
        self.labels.tie_across(labels, dimension % labels.dim())
        return labels

    def reduces(self, call: _Call) -> Any:
        """Reduce places; what is reduced over channels stays, except for sums."""
        if "other" in call:
            return self.pointwise(call)
        labels, dimensions = self._of(call.tensors[0]), call.get("dim")
        if not labels.numel():
            return self._refused(call)
        if isinstance(dimensions, int):
            dimensions = [dimensions]
        reduced = [d % labels.dim() for d in dimensions or range(labels.dim())]
        mixed = [d for d in reduced if self.labels.varies(labels, d)]
        if mixed and not self._goes_as_slices(labels, mixed):
            if call.name not in SUMS:
                # Attention weights are averaged over heads for those who look at them; nothing should compute with them.
                return None if self.network.attending else self._refused(call)
            labels = torch.tensor(STAYS).expand(labels.shape)
        for dimension in reduced:
            labels = labels.narrow(dimension, 0, 1)
        return _each(call.result, lambda out: labels.reshape(out.shape))

    def runs_along(self, call: _Call) -> Any:
        """Pass softmax and cumulative sums along places; along channels they pin them."""
        labels, dimension = self._of(call.tensors[0]), call["dim"] % call.tensors[0].dim()
        varies = self.labels.varies(labels, dimension)
        if varies and not self._goes_as_slices(labels, [dimension]):
            return self._refused(call)
        return _each(call.result, lambda out: labels)

    def _goes_as_slices(self, labels: Tensor, dimensions: Sequence[int]) -> bool:
        """Tie what an operation over some dimensions mixes, where channels lie along others too; return whether they do."""
        apart = bool(set(self.labels.axes(labels)) - set(dimensions))
        for dimension in dimensions if apart else ():
            self.labels.tie_across(labels, dimension)
        return apart

    # Attention

    def multiplies(self, call: _Call) -> Tensor | None:
        """Let heads of an attention module go as a whole; what other products of activations mix stays."""
        parts = [self._of(tensor) for tensor in call.tensors]
        dimensions = call.result.dim()
        heads = {d for part in parts for d in self.labels.axes(_pad(part, dimensions)) if d < dimensions - 2}
        if not self.network.attending or len(heads) != 1 or min(part.dim() for part in parts[:2]) < 3:
            self._pin(call.tensors, call.name)
            return None
        (axis,) = heads
        padded = [_pad(part, dimensions) for part in parts]
        factors = 3 if call.name == _ATTENTION else 2
        masks = [part for part in padded[factors:] if self.labels.varies(part, axis)]
        rows, *others = (self.labels.along(part, axis) for part in [*padded[:factors], *masks])
        if any(len(rows) % len(other) for other in others):
            self._pin(call.tensors, call.name)
            return None
        for other in others:
            if len(other) == 1:
                self.labels.pin(other, "all heads share it")
            else:  # each key and value may serve several queries
                self.labels.tie(rows, other.repeat_interleave(len(rows) // len(other)))
        name, _ = self.network.attending[-1]
        self.network.heads[name].append(rows)
        left, right = call.tensors[0].shape, call.tensors[1].shape
        if call.name == _ATTENTION:  # queries by keys, and their weights by values
            self.network.head_macs[name] += (
                math.prod(left[:-1]) * right[-2] * (left[-1] + call.result.shape[-1])
            )
        else:
            self.network.head_macs[name] += call.result.numel() * left[-1]
        return spread(rows, axis, call.result.shape)

    def looks_up(self, call: _Call) -> Any:
        """Move what a table holds for each place; its rows stay."""
        table, labels = call.tensors[0], self._of(call.tensors[0])
        indexed = (
            [0] if call.name == "embedding" else [d for d, i in enumerate(call["indices"]) if i is not None]
        )
        if any(self.labels.varies(labels, d) for d in indexed):
            if not self.network.is_loose(labels):
                return self._refused(call)
            for dimension in indexed:
                self.labels.tie_across(labels, dimension)
        arguments = [labels if argument is table else argument for argument in call.args]
        return call.func(*arguments, **call.kwargs)


_RULES: dict[str, Callable[[Operations, _Call], Any]] = {
    **dict.fromkeys(_WEIGHTED, Operations.weighted),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), Operations.channelwise),
    **dict.fromkeys(("layer_norm", "rms_norm"), Operations.layer_norm),
    **dict.fromkeys(("matmul", "bmm", _ATTENTION), Operations.multiplies),
    **dict.fromkeys(("index", "embedding"), Operations.looks_up),
    "prelu": Operations.channelwise,
    **dict.fromkeys(_SAME_SHAPE, Operations.same_shape),
    **dict.fromkeys(_MOVES, Operations.moves),
    "constant_pad_nd": Operations.pads,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), Operations.shuffles),
    **dict.fromkeys(("chunk", "unsafe_chunk", "glu"), Operations.chunks),
    **dict.fromkeys(
        ("split", "split_with_sizes", "unsafe_split", "slice", "narrow", "select", "unbind", "index_select"),
        Operations.splits,
    ),
    "roll": Operations.rolls,
    **dict.fromkeys(("cat", "concat", "concatenate"), Operations.joins),
    "stack": Operations.stacks,
    **dict.fromkeys(_REDUCTIONS | SUMS, Operations.reduces),
    **dict.fromkeys(_ALONG, Operations.runs_along),
    **dict.fromkeys(
        ("copy", "hardswish", "hardsigmoid", "floor_divide", "rrelu_with_noise"), Operations.pointwise
    ),
}


class _Call:
    """One operation: its arguments by name, and what it returned."""

    def __init__(
        self,
        func: Any,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        result: Any,
    ) -> None:
        self.func, self.name, self.args, self.kwargs = func, name, args, kwargs
        self.tensors, self.result = tensors, result
        self._named = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        self._named |= {
            a.name: value for a, value in zip(func._schema.arguments, args, strict=False)
        } | kwargs

    def __getitem__(self, name: str) -> Any:
        return self._named[name]

    def __contains__(self, name: str) -> bool:
        return name in self._named

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, or `default` where the operation has none of this name."""
        return self._named.get(name, default)


@cache
def _is_pointwise(packet: Any) -> bool:
    # Some overloads (of operations in place) lack the tag.
    return any(torch.Tag.pointwise in getattr(packet, name).tags for name in packet.overloads())


def _pad(labels: Tensor, dimensions: int) -> Tensor:
    return labels.reshape((1,) * (dimensions - labels.dim()) + labels.shape)


def _each(result: Any, rule: Callable[[Tensor], Tensor | None]) -> Any:
    return rule(result) if isinstance(result, Tensor) else [rule(out) for out in result]


def _attach(result: Any, labels: Any) -> None:
    if isinstance(result, Tensor):
        result._filter_labels = labels  # type: ignore[attr-defined]
    elif isinstance(result, tuple | list):
        for place, out in enumerate(result):
            if isinstance(out, Tensor):
                out._filter_labels = labels[place] if labels is not None else None  # type: ignore[attr-defined]
