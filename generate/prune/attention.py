"""Attention: which modules have heads, and attention of four linear layers whose heads can be removed.

Head borders come from the module: its attributes (`num_heads`, `heads`, `head_dim` and their like) say how it shapes its
channels, and after a cut they say how many heads are left. `nn.MultiheadAttention` holds one weight for three layers;
a copy that is to be cut gets four linear layers in its place, which compute the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from popstats.errors import PlanError

_LAYERS = nn.Linear | nn.modules.conv._ConvNd
_ROLES = ("q_proj", "k_proj", "v_proj")
# Names of attributes: numbers and sizes of heads, sizes of any kind, and widths of what modules hold.
_HEADS = re.compile(r"(\w*_)?[nd]?heads?(_?(dim|size|width|channels|num|count))?")
_SIZE = re.compile("^d_|dim|size|width|channels")
# Names of numbers of places, which may equal a width by chance.
_PLACES = re.compile("window|area|seq|token|patch|resolution|length|height|grid")
_WIDTH = re.compile("dim|embd?|hidden|width|channels|d_model|features")


class HeadAttention(nn.Module):
    """`nn.MultiheadAttention` as four linear layers: the same call, outputs and number of parameters.

    It loads weights of either. Masks and cross attention work as there.
    """

    # What torch's encoder layers ask about before they take their fused kernel, which would pass the linear layers by.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = whole.num_heads, whole.head_dim
        self.batch_first, self.dropout = whole.batch_first, whole.dropout
        weight, bias = whole.in_proj_weight, cast("nn.Parameter | None", whole.in_proj_bias)
        biases = [None] * len(_ROLES) if bias is None else bias.detach().chunk(len(_ROLES))
        for role, rows, shift in zip(_ROLES, weight.detach().chunk(len(_ROLES)), biases, strict=True):
            self.add_module(role, _linear(rows, shift, weight.requires_grad))
        out = whole.out_proj
        self.out_proj = _linear(out.weight, out.bias, out.weight.requires_grad)
        self.train(whole.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and, where asked for, the attention weights."""
        if not self.batch_first:
            query, key, value = (tokens.transpose(0, 1) for tokens in (query, key, value))
        q, k, v = (
            self._heads(cast(nn.Linear, getattr(self, role))(tokens))
            for role, tokens in zip(_ROLES, (query, key, value), strict=True)
        )
        mask = _mask(attn_mask, key_padding_mask, q, self.num_heads)
        chance, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            weights = (self.head_dim**-0.5 * q @ k.transpose(2, 3) + (0 if mask is None else mask)).softmax(
                -1
            )
            mixed = functional.dropout(weights, chance) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, chance)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the fused weights of `nn.MultiheadAttention` apart."""
        for kind in ("weight", "bias"):
            fused = state.pop(f"{prefix}in_proj_{kind}", None)
            if fused is not None:
                rows = zip(_ROLES, fused.chunk(len(_ROLES)), strict=True)
                state |= {f"{prefix}{role}.{kind}": part for role, part in rows}
        super()._load_from_state_dict(state, prefix, *rest)


def _linear(weight: Tensor, bias: Tensor | None, trained: bool) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, "meta", weight.dtype)
    layer.weight = nn.Parameter(weight.detach().clone(), trained)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), trained)
    return layer


def _mask(attn: Tensor | None, padding: Tensor | None, q: Tensor, heads: int) -> Tensor | None:
    """Return both masks as one that is added to the products, of four dimensions."""
    found = None
    for mask in (attn, None if padding is None else padding[:, None, None]):
        if mask is not None:
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)
            mask = mask.view(-1, heads, *mask.shape[1:]) if mask.dim() == 3 else mask
            found = mask if found is None else found + mask
    return found


def open_attention(network: nn.Module) -> nn.Module:
    """Replace every `nn.MultiheadAttention` that four linear layers can stand for, in place; return the network."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.MultiheadAttention or child.bias_k is not None or child.add_zero_attn:
                continue
            if child._qkv_same_embed_dim:
                setattr(module, name, HeadAttention(child))
    return HeadAttention(network) if type(network) is nn.MultiheadAttention else network


def attention_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the innermost modules that say how many heads they have and hold layers, by name.

    One that holds layers itself goes before helpers inside it, such as those that compute biases for each head.
    """
    found = {name: module for name, module in network.named_modules() if head_sizes(module)}
    direct = [n for n, module in found.items() if any(isinstance(m, _LAYERS) for m in module.children())]
    names = [
        name
        for name, module in found.items()
        if name in direct
        or (any(isinstance(m, _LAYERS) for m in module.modules()) and not is_inside(name, direct))
    ]
    return {n: found[n] for n in names if not any(is_inside(other, [n]) for other in names if other != n)}


def is_inside(layer: str, names: Iterable[str]) -> bool:
    """Return whether a layer is one of the modules in `names`, or inside one."""
    return any(layer == name or layer.startswith(f"{name}." if name else "") for name in names)


def at(network: nn.Module, name: str) -> nn.Module | Tensor:
    """Return the module, parameter or buffer of this name."""
    parent, _, attribute = name.rpartition(".")
    try:
        found = getattr(network.get_submodule(parent), attribute) if name else network
    except AttributeError as error:
        raise PlanError(
            f"network {type(network).__name__} has no layer {name!r}: expected groups or a recipe of this network."
        ) from error
    return cast("nn.Module | Tensor", found)


def head_sizes(module: nn.Module) -> dict[str, int]:
    """Return a module's attributes that speak of heads: their number or their dimension."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int and value > 0 and _HEADS.fullmatch(name.lower())
    }


def set_heads(attention: nn.Module, before: int, now: int, sizes: Iterable[int]) -> None:
    """Tell an attention module and helpers in it that `now` of `before` heads, of one of `sizes` channels, are left."""
    for module in attention.modules():
        for name, value in head_sizes(module).items():
            if not _SIZE.search(name.lower()) and value % before == 0:
                setattr(module, name, value * now // before)
                set_shape(module, value, value * now // before)
    inner = {size * before for size in sizes if size > 1}  # biases have one value for each head
    for name, value in list(vars(attention).items()):
        if type(value) is int and value in inner and not _PLACES.search(name.lower()):
            setattr(attention, name, value * now // before)


def set_width(module: nn.Module, before: int, now: int) -> None:
    """Tell a module that its own layers have `now` of `before` channels, where an attribute says so."""
    for name, value in list(vars(module).items()):
        if type(value) is int and value == before and _WIDTH.search(name.lower()):
            setattr(module, name, now)


def set_shape(module: nn.Module, before: int, now: int) -> None:
    """Tell a module that what its own parameters serve has `now` of `before` places along the last axis of that size."""
    for name, value in list(vars(module).items()):
        if isinstance(value, tuple) and "shape" in name.lower() and before in value:
            place = len(value) - 1 - value[::-1].index(before)
            setattr(module, name, (*value[:place], now, *value[place + 1 :]))
