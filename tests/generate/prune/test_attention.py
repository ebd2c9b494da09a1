"""Transformers: whole heads, MLP widths and the embedding are cut right, or kept whole, or refused by name."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

import generate
from generate.inputs.networks import without_fast_attention
from generate.prune.attention import HeadAttention, at, open_attention
from generate.run.statement import layer_recipe
from popstats.errors import PlanError
from tests.generate.prune.transformers import (
    CLASSES,
    CUT,
    HEADS,
    HIDDEN,
    PAIRS,
    REFUSED,
    TIED,
    TOKENS,
    WHOLE,
    WIDTH,
    torchvision_swin,
    torchvision_vit,
)

SHAPE = (3, 8, 8)


def counted(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad(), without_fast_attention():
        network.eval()(torch.zeros(1, *SHAPE))
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


def random_filters(groups, seed):
    rng = np.random.default_rng(seed)
    return {g.name: np.sort(rng.permutation(g.width)[: rng.integers(1, g.width)]) for g in groups}


def over_the_rest(norm, gone):
    """Let a norm take its statistics over the channels that are left."""
    stay = torch.from_numpy(np.setdiff1d(np.arange(norm.normalized_shape[0]), gone))

    def normalise(module, inputs, output):
        tokens = inputs[0][..., stay]
        centre = tokens.mean(-1, keepdim=True) if isinstance(module, nn.LayerNorm) else 0
        eps = module.eps if module.eps is not None else torch.finfo(tokens.dtype).eps
        rest = (tokens - centre) / ((tokens - centre).pow(2).mean(-1, keepdim=True) + eps).sqrt()
        rest = rest * module.weight[stay] + (
            0 if getattr(module, "bias", None) is None else module.bias[stay]
        )
        return torch.zeros_like(output).index_copy(-1, stay, rest)

    norm.register_forward_hook(normalise)


def masked(network, groups, kept):
    """A copy that computes with zeros in place of what is removed, made without the product's own proof."""
    silenced = open_attention(copy.deepcopy(network))
    for group in groups:
        gone = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members:
            layer, channels = at(silenced, member.layer), member.channels[gone].ravel()
            if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
                over_the_rest(layer, channels)
            elif isinstance(layer, nn.Linear | nn.Conv2d) and member.side == "in":
                layer.weight.data[:, channels] = 0
    return silenced


def lively(make):
    """The network in double precision, with nothing at zero or one."""
    torch.manual_seed(0)
    network = make().double()
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


@pytest.mark.parametrize("name", [*CUT, *PAIRS, *TIED])
def test_a_cut_equals_the_masked_network_and_costs_what_was_predicted(name):
    network = lively((CUT | PAIRS | TIED)[name])
    groups = generate.find_groups(network, SHAPE)
    alone = [HEADS // (2 if name in PAIRS else 1)] * 2 + [WIDTH]
    expected = ([HEADS] if name in TIED else alone) + [HIDDEN] * 2
    assert sorted(group.width for group in groups) == sorted(expected)
    costs = generate.derive_costs(network, SHAPE, groups)
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    for seed in range(2):
        kept = random_filters(groups, seed)
        small = generate.cut(network.eval(), SHAPE, groups, kept)
        with without_fast_attention():
            torch.testing.assert_close(small(images), masked(network, groups, kept)(images))
        assert counted(small.float()) == costs.both([len(kept[g.name]) for g in groups])
    assert counted(network.float()) == (costs.original_macs, costs.original_params)


def test_macs_are_those_of_the_formula():
    costs = generate.derive_costs(torchvision_vit(), SHAPE, generate.find_groups(torchvision_vit(), SHAPE))
    tokens, patch = TOKENS + 1, 3 * 2 * 2
    heads, hidden, width = [1, 3], [7, 31], 11
    inner = [count * WIDTH // HEADS for count in heads]
    expected = TOKENS * patch * width + width * CLASSES
    for a, m in zip(inner, hidden, strict=True):
        expected += 4 * tokens * width * a + 2 * tokens**2 * a + 2 * tokens * width * m
    assert costs.macs([width, heads[0], hidden[0], heads[1], hidden[1]]) == expected


@pytest.mark.parametrize("name", WHOLE)
def test_heads_that_cannot_go_as_units_stay_and_the_rest_is_cut(name):
    groups = generate.find_groups(WHOLE[name](), SHAPE)
    assert HEADS not in {group.width for group in groups}
    assert [group.width for group in groups if group.name.endswith("mlp.0")] == [HIDDEN] * 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_refused_by_name(name):
    make, reason = REFUSED[name]
    with pytest.raises(PlanError, match=reason) as refusal:
        generate.find_groups(make(), SHAPE)
    keep = json.loads(str(refusal.value).split("keep = ")[1].rstrip(".").replace("'", '"'))
    groups = generate.find_groups(make(), SHAPE, keep=keep)
    assert not {group.name for group in groups} & set(keep)


def test_each_stage_of_a_swin_is_cut_by_heads_and_channels_together():
    groups = generate.find_groups(torchvision_swin(), (3, 16, 16))
    assert [g.width for g in groups] == [2, 48, 48, 4, 96]
    second = torchvision_swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)
    groups = generate.find_groups(second, (3, 16, 16))
    assert [g.width for g in groups if not g.name.endswith("cpb_mlp.0")] == [2, 48, 48, 4, 96]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_first": True}])
def test_four_layers_compute_what_multihead_attention_computes(options):
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(WIDTH, HEADS, **options).double().eval()
    apart = open_attention(copy.deepcopy(whole))
    assert isinstance(apart, HeadAttention)
    assert sum(p.numel() for p in apart.parameters()) == sum(p.numel() for p in whole.parameters())
    query, other = torch.randn(7, 5, WIDTH).double(), torch.randn(7, 5, WIDTH).double()
    length, batch = (5, 7) if options.get("batch_first") else (7, 5)
    forbidden = torch.rand(length, length) > 0.7
    forbidden[:, 0] = False
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[:, -1] = True
    for masks in ({}, {"attn_mask": forbidden}, {"key_padding_mask": padding, "need_weights": False}):
        for found, expected in zip(
            apart(query, other, other, **masks), whole(query, other, other, **masks), strict=True
        ):
            if expected is not None:
                torch.testing.assert_close(found, expected)
    fresh = open_attention(nn.MultiheadAttention(WIDTH, HEADS, **options).double()).eval()
    fresh.load_state_dict(whole.state_dict())
    torch.testing.assert_close(fresh(query, query, query)[0], whole(query, query, query)[0])


@pytest.mark.parametrize(
    "name", ["fused", "hugging face", "torch", "torchvision", "grouped queries", "from shape"]
)
def test_a_subnetwork_is_loaded_with_its_heads(name, tmp_path):
    make = (CUT | PAIRS | TIED)[name]
    network = lively(make).float().eval()
    groups = generate.find_groups(network, SHAPE)
    kept = random_filters(groups, 0)
    small = generate.cut(network, SHAPE, groups, kept)
    widths = [len(kept[group.name]) for group in groups]
    recipe = {
        "widths": {group.name: width for group, width in zip(groups, widths, strict=True)},
        "layers": layer_recipe(open_attention(copy.deepcopy(network)), groups, widths)["layers"],
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    save_file(small.state_dict(), tmp_path / "weights.safetensors")
    loaded = generate.load_subnetwork(tmp_path / "recipe.json", tmp_path / "weights.safetensors", make())
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(loaded(images), small(images))
