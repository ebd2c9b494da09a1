"""Small networks in the shapes that people report in trackers: each is cut right, kept whole where it must be, or refused.

Right means, for random cuts: it runs, torch counts what was predicted, and it computes what the original computes with the
same filters zero where they are made. That differs from the product's own proof, which unplugs what reads them.
"""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

import generate
from popstats.errors import PlanError

SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, images):
        return self.run(self, images)


def conv(channels_in, channels_out, size=3, **options):
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2, **options)


def block(channels_in, channels_out, **options):
    return nn.Sequential(
        conv(channels_in, channels_out, bias=False, **options), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def pool(features):
    return features.mean((2, 3))


def shuffle(features, groups=2):
    batch, channels, height, width = features.shape
    parts = features.view(batch, groups, channels // groups, height, width)
    return parts.transpose(1, 2).reshape(batch, channels, height, width)


def with_parameter(network, name, values):
    setattr(network, name, nn.Parameter(values))
    return network


def tied():
    network = Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x)).relu()))),
        a=conv(3, 6),
        b=conv(6, 6),
        c=conv(6, 6),
        h=nn.Linear(6, 5),
    )
    network.c.weight = network.b.weight
    return network


def tied_head():
    network = Net(
        lambda s, x: F.linear(s.a(pool(s.b(x))), s.h.weight),
        b=conv(3, 6),
        a=nn.Linear(6, 8),
        h=nn.Linear(8, 5),
    )
    return network


def pruned_and_removed():
    network = Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 6), h=nn.Linear(6, 5))
    prune.ln_structured(network.a, "weight", 0.25, n=1, dim=0)
    prune.remove(network.a, "weight")
    return network


def masked():
    network = Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 6), h=nn.Linear(6, 5))
    prune.ln_structured(network.a, "weight", 0.25, n=1, dim=0)
    return network


def masked_bias():
    network = Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 6), h=nn.Linear(6, 5))
    prune.l1_unstructured(network.a, "bias", 0.3)
    return network


def computed_bias():
    network = Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 6), h=nn.Linear(6, 5))
    parametrize.register_parametrization(network.a, "bias", nn.Softplus())
    return network


def with_compiled_part():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Net(
            lambda s, x: s.h(pool(s.b(s.a(x)))), a=conv(3, 8), b=torch.jit.script(conv(8, 6)), h=head(6)
        )


class Store:
    def __init__(self):
        self.features = {}

    def __call__(self, module, inputs, output):
        self.features[module] = output


def with_hook():
    network = Net(lambda s, x: s.h(pool(s.a(x))), a=conv(3, 8), h=head(8))
    network.a.register_forward_hook(Store())
    network(torch.randn(1, *SHAPE))
    return network


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Net(
            lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
            a=nn.utils.weight_norm(conv(3, 8)),
            b=conv(8, 6),
            c=conv(6, 6),
            h=nn.Linear(6, 5),
        )


class Res2Block(nn.Module):
    """Res2Net: parts of a fixed width, each convolved and added to the next."""

    def __init__(self, channels=8, parts=4):
        super().__init__()
        self.width = channels // parts
        self.first, self.last = conv(channels, channels, 1), conv(channels, channels, 1)
        self.convs = nn.ModuleList(conv(self.width, self.width) for _ in range(parts - 1))

    def forward(self, features):
        parts, made = torch.split(self.first(features), self.width, 1), []
        for place, layer in enumerate(self.convs):
            made.append(layer(parts[place] if place == 0 else parts[place] + made[-1]))
        return self.last(torch.cat([*made, parts[-1]], 1)) + features


class C2f(nn.Module):
    """YOLOv8: half of the channels goes through bottlenecks, all steps are concatenated."""

    def __init__(self, read, made, steps=2):
        super().__init__()
        half = made // 2
        self.cv1, self.cv2 = block(read, made), block((2 + steps) * half, made)
        self.steps = nn.ModuleList(block(half, half) for _ in range(steps))

    def forward(self, features):
        parts = list(self.cv1(features).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]) + parts[-1])
        return self.cv2(torch.cat(parts, 1))


class OptionA(nn.Module):
    """CIFAR ResNet without projections: a shortcut of every second pixel, padded with zero channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.h = (
            block(3, 8),
            block(8, 16, stride=2),
            conv(16, 16),
            nn.Linear(16, 5),
        )

    def forward(self, images):
        stem = self.stem(images)
        short = F.pad(stem[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.h(pool((self.b(self.a(stem)) + short).relu()))


class SegNet(nn.Module):
    """Places of maxima from before go back into the maps of another layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.h = block(3, 8), conv(8, 8), conv(8, 6), nn.Linear(6, 5)

    def forward(self, images):
        features, places = F.max_pool2d(self.a(images), 2, return_indices=True)
        return self.h(pool(self.c(F.max_unpool2d(self.b(features), places, 2))))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Linear(channels, 4), nn.Linear(4, channels)

    def forward(self, features):
        gate = torch.sigmoid(self.up(self.down(pool(features)).relu()))
        return features * gate[:, :, None, None]


class Auxiliary(nn.Module):
    """A head that only training uses."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = block(3, 8), block(8, 6), block(8, 4)
        self.h, self.x = nn.Linear(6, 5), nn.Linear(4, 5)

    def forward(self, images):
        features = self.a(images)
        scores = self.h(pool(self.b(features)))
        return scores + 0.3 * self.x(pool(self.c(features))) if self.training else scores


class ReadsItsOwnWidth(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = conv(3, 8), conv(8, 8), nn.Linear(8, 5)

    def forward(self, images):
        return self.last(self.second(self.first(images)).view(-1, 8, 64).mean(2))


class RMSNorm2d(nn.Module):
    """Written by hand: its mean over channels is no layer's."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, features):
        return (
            features * torch.rsqrt(features.pow(2).mean(1, keepdim=True) + 1e-6) * self.scale[:, None, None]
        )


class Attention(nn.Module):
    def __init__(self, width=8, heads=2, tokens=16):
        super().__init__()
        self.patch, self.norm, self.heads = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width), heads
        self.place = nn.Parameter(torch.randn(1, tokens, width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.h = nn.Linear(width, 16), nn.Linear(16, width), nn.Linear(width, 5)

    def forward(self, images):
        tokens = self.patch(images).flatten(2).transpose(1, 2) + self.place
        batch, count, _ = tokens.shape
        qkv = self.qkv(self.norm(tokens)).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(batch, count, -1)
        tokens = tokens + self.out(mixed)
        return self.h((tokens + self.down(F.gelu(self.up(tokens)))).mean(1))


class FromAttributes(nn.Module):
    """Norms whose shapes are attributes, as timm writes them."""

    def __init__(self, channels):
        super().__init__()
        self.normalized_shape, self.scale_shape = (channels,), (channels, 1, 1)
        self.weight, self.scale = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(self, features):
        features = features * self.scale.view(self.scale_shape)
        return F.layer_norm(features.movedim(1, -1), self.normalized_shape, self.weight).movedim(-1, 1)


class ChannelNorm(nn.Module):
    """Two parts of every norm's channels have statistics in common, and whole parts go (group norm by hand)."""

    def __init__(self, groups, channels):
        super().__init__()
        self.groups, self.scale = groups, nn.Parameter(torch.ones(channels))

    def forward(self, features):
        parts = features.view(len(features), -1, len(self.scale) // self.groups, *features.shape[2:])
        parts = parts / (parts.pow(2).mean((2, 3, 4), keepdim=True) + 1e-6).sqrt()
        return parts.view(features.shape) * self.scale[:, None, None]


def noisy(features):
    return features + 0.1 * torch.randn_like(features)


def head(width):
    return nn.Linear(width, 5)


def gate(features):
    left, right = features.chunk(2, 1)
    return left * right


# By name: the network, and whether zero filters stay zero on their way (else the product's own proof is all there is).
CUT = {
    "plain": lambda: Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=block(3, 8), b=block(8, 6), h=head(6)),
    "channels-last flatten": lambda: Net(
        lambda s, x: s.h(F.adaptive_avg_pool2d(s.a(x), 2).permute(0, 2, 3, 1).flatten(1)),
        a=conv(3, 8),
        h=head(32),
    ),
    "several flattened poolings": lambda: Net(
        lambda s, x: s.h(torch.cat([F.adaptive_max_pool2d(s.a(x), k).flatten(1) for k in (1, 2, 4)], 1)),
        a=conv(3, 6),
        h=head(6 * 21),
    ),
    "poolings flattened in both orders": lambda: Net(
        lambda s, x: s.h(
            torch.cat(
                [
                    F.adaptive_avg_pool2d(s.a(x), 2).flatten(1),
                    F.adaptive_avg_pool2d(s.a(x), 2).permute(0, 2, 3, 1).reshape(len(x), -1),
                ],
                1,
            )
        ),
        a=conv(3, 6),
        h=head(48),
    ),
    "input before features": lambda: Net(
        lambda s, x: s.h(pool(s.b(torch.cat([x, s.a(x)], 1)))), a=conv(3, 8), b=conv(11, 6), h=head(6)
    ),
    "constant coordinates between features": lambda: Net(
        lambda s, x: s.h(
            pool(s.c(torch.cat([s.a(x), torch.linspace(0, 1, 8).expand(len(x), 2, 8, 8), s.b(x)], 1)))
        ),
        a=conv(3, 6),
        b=conv(3, 4),
        c=conv(12, 6),
        h=head(6),
    ),
    "4-D shuffle": lambda: Net(
        lambda s, x: s.h(
            pool(s.b(s.a(x).reshape(len(x), 2, -1, 64).transpose(1, 2).reshape(len(x), -1, 8, 8)))
        ),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
    "5-D shuffle": lambda: Net(
        lambda s, x: s.h(pool(s.b(shuffle(s.a(x))))), a=conv(3, 8), b=conv(8, 6), h=head(6)
    ),
    "nn.ChannelShuffle": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.m(s.a(x))))),
        a=conv(3, 8),
        m=nn.ChannelShuffle(4),
        b=conv(8, 6),
        h=head(6),
    ),
    "flip": lambda: Net(lambda s, x: s.h(pool(s.b(s.a(x).flip(1)))), a=conv(3, 8), b=conv(8, 6), h=head(6)),
    "repeat": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.a(x).repeat(1, 2, 1, 1)))), a=conv(3, 8), b=conv(16, 6), h=head(6)
    ),
    "repeat_interleave": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.a(x).repeat_interleave(2, 1)))), a=conv(3, 8), b=conv(16, 6), h=head(6)
    ),
    "chunk gate": lambda: Net(
        lambda s, x: s.h(pool(s.b(gate(s.a(x))))), a=conv(3, 8), b=conv(4, 6), h=head(6)
    ),
    "GLU": lambda: Net(
        lambda s, x: s.h(F.glu(s.a(pool(s.b(x))), 1)), a=nn.Linear(6, 16), b=conv(3, 6), h=head(8)
    ),
    "max feature map": lambda: Net(
        lambda s, x: s.h(pool(s.b(torch.maximum(*s.a(x).chunk(2, 1))))), a=conv(3, 8), b=conv(4, 6), h=head(6)
    ),
    "pixel shuffle": lambda: Net(
        lambda s, x: s.h(pool(s.b(F.pixel_shuffle(s.a(x), 2)))), a=conv(3, 16), b=conv(4, 6), h=head(6)
    ),
    "pixel unshuffle": lambda: Net(
        lambda s, x: s.h(pool(s.b(F.pixel_unshuffle(s.a(x), 2)))), a=conv(3, 6), b=conv(24, 6), h=head(6)
    ),
    "space to depth by slices": lambda: Net(
        lambda s, x: s.h(pool(s.b(torch.cat([s.a(x)[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)))),
        a=conv(3, 6),
        b=conv(24, 6),
        h=head(6),
    ),
    "linear, view, transposed": lambda: Net(
        lambda s, x: s.h(pool(s.t(s.f(pool(s.a(x))).view(len(x), -1, 2, 2)))),
        a=conv(3, 8),
        f=nn.Linear(8, 24),
        t=nn.ConvTranspose2d(6, 8, 2, 2),
        h=head(8),
    ),
    "tied weights": tied,
    "functional head": tied_head,
    "functional convolution": lambda: Net(
        lambda s, x: s.h(pool(s.b(F.conv2d(x, s.a.weight, padding=1).relu()))),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
    "called twice": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.b(s.a(x)).relu()))), a=conv(3, 8), b=conv(8, 8), h=head(8)
    ),
    "logit scale": lambda: with_parameter(
        Net(lambda s, x: s.h(pool(s.a(x))) * s.scale, a=conv(3, 8), h=head(8)), "scale", torch.tensor(2.0)
    ),
    "ReZero": lambda: with_parameter(
        Net(lambda s, x: s.h(pool(s.a(x) + s.alpha * s.b(s.a(x)))), a=conv(3, 8), b=conv(8, 8), h=head(8)),
        "alpha",
        torch.full((1,), 0.3),
    ),
    "layer scale": lambda: with_parameter(
        Net(lambda s, x: s.h(pool(s.a(x) * s.gamma)), a=conv(3, 8), h=head(8)), "gamma", torch.rand(8, 1, 1)
    ),
    "one-channel gate": lambda: Net(
        lambda s, x: s.h(pool(s.b(torch.sigmoid(s.mask(x)) * s.a(x)))),
        a=conv(3, 8),
        mask=conv(3, 1),
        b=conv(8, 6),
        h=head(6),
    ),
    "squeeze and excite": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.e(s.a(x))))), a=block(3, 8), e=SqueezeExcite(8), b=conv(8, 6), h=head(6)
    ),
    "Option A": OptionA,
    "C2f": lambda: Net(lambda s, x: s.h(pool(s.b(s.a(x)))), a=block(3, 8), b=C2f(8, 12), h=head(12)),
    "Res2Net": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))), a=conv(3, 8), b=Res2Block(), c=conv(8, 6), h=head(6)
    ),
    "dense": lambda: Net(
        lambda s, x: s.h(pool(s.c(torch.cat([s.a(x), s.b(s.a(x))], 1)))),
        a=block(3, 6),
        b=block(6, 4),
        c=block(10, 6),
        h=head(6),
    ),
    "grouped": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
        a=conv(3, 8),
        b=conv(8, 12, groups=4),
        c=conv(12, 6),
        h=head(6),
    ),
    "grouped transposed": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.t(s.a(x))))),
        a=conv(3, 8),
        t=nn.ConvTranspose2d(8, 12, 2, 2, groups=2),
        b=conv(12, 6),
        h=head(6),
    ),
    "depthwise with multiplier": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
        a=conv(3, 6),
        b=conv(6, 12, groups=6),
        c=conv(12, 6),
        h=head(6),
    ),
    "depthwise transposed": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
        a=conv(3, 6),
        b=nn.ConvTranspose2d(6, 6, 2, 2, groups=6),
        c=conv(6, 6),
        h=head(6),
    ),
    "group norm": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.n(s.a(x)).relu()))),
        a=conv(3, 12),
        n=nn.GroupNorm(4, 12),
        b=conv(12, 6),
        h=head(6),
    ),
    "instance norm": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.n(s.a(x))))),
        a=conv(3, 8),
        n=nn.InstanceNorm2d(8, affine=True),
        b=conv(8, 6),
        h=head(6),
    ),
    "batch norm without affine": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.n(s.a(x))))),
        a=conv(3, 8, bias=False),
        n=nn.BatchNorm2d(8, affine=False),
        b=conv(8, 6),
        h=head(6),
    ),
    "weight norm kept": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
        a=parametrizations.weight_norm(conv(3, 8)),
        b=conv(8, 6),
        c=conv(6, 6),
        h=head(6),
    ),
    "spectral norm kept": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))))),
        a=conv(3, 8),
        b=conv(8, 6),
        c=parametrizations.spectral_norm(conv(6, 6)),
        h=head(6),
    ),
    "old weight norm kept": old_weight_norm,
    "pruned and removed": pruned_and_removed,
    "masked by torch.prune": masked,
    "masked bias": masked_bias,
    "computed bias": computed_bias,
    "unpooling": SegNet,
    "LSTM whole": lambda: Net(
        lambda s, x: s.h(s.r(s.b(s.a(x)).mean(2).transpose(1, 2))[0][:, -1]),
        a=conv(3, 8),
        b=conv(8, 6),
        r=nn.LSTM(6, 7, batch_first=True),
        h=head(7),
    ),
    "recurrent part whole": lambda: Net(
        lambda s, x: s.h(s.r(s.b(s.a(x)).mean(2).transpose(1, 2))[0][:, -1]),
        a=conv(3, 8),
        b=conv(8, 6),
        r=nn.GRU(6, 7, batch_first=True),
        h=head(7),
    ),
    "auxiliary head": Auxiliary,
    "folded groups": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x).view(len(x) * 2, -1, 8, 8)).view(len(x), -1, 8, 8)))),
        a=conv(3, 8),
        b=conv(4, 6),
        c=conv(12, 6),
        h=head(6),
    ),
    "fixed slice": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))[:, :4]))), a=conv(3, 8), b=conv(8, 8), c=conv(4, 6), h=head(6)
    ),
    "roll": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x)).roll(1, 1)))),
        a=conv(3, 8),
        b=conv(8, 8),
        c=conv(8, 6),
        h=head(6),
    ),
    "permuted channels": lambda: Net(
        lambda s, x: s.h(pool(s.c(s.b(s.a(x))[:, torch.arange(7, -1, -1)]))),
        a=conv(3, 8),
        b=conv(8, 8),
        c=conv(8, 6),
        h=head(6),
    ),
    "einsum head": lambda: Net(
        lambda s, x: torch.einsum("bc,oc->bo", pool(s.b(s.a(x))), s.h.weight),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
    "mixer": lambda: Net(
        lambda s, x: s.h((s.t(s.a(x).flatten(2)).relu().transpose(1, 2) @ s.w).mean(1)),
        a=conv(3, 8),
        t=nn.Sequential(nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 16)),
        w=nn.Parameter(torch.randn(8, 8)),
        h=head(8),
    ),
}
CUT |= {
    "image by image": lambda: Net(
        lambda s, x: torch.cat([s.h(pool(s.b(s.a(image[None])))) for image in x]),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
    "half a network in half precision": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.a(x.to(s.a.weight.dtype)))).to(s.h.weight.dtype)),
        a=conv(3, 8).bfloat16(),
        b=conv(8, 6).bfloat16(),
        h=head(6),
    ),
    "a layer that reads a parameter": lambda: with_parameter(
        Net(
            lambda s, x: s.h(pool(s.b(s.a(x) + s.g(s.z)))),
            a=conv(3, 8),
            g=conv(4, 8),
            b=conv(8, 6),
            h=head(6),
        ),
        "z",
        torch.randn(1, 4, 8, 8),
    ),
    "unit length": lambda: Net(
        lambda s, x: s.h(F.normalize(pool(s.b(s.a(x))), dim=1)), a=conv(3, 8), b=conv(8, 6), h=head(6)
    ),
    "sum over channels": lambda: Net(lambda s, x: s.h(s.a(x).sum(1).flatten(1)), a=conv(3, 8), h=head(64)),
    "positions in parts": lambda: with_parameter(
        Net(
            lambda s, x: s.h((s.a(x).flatten(2) + s.z[..., 1:]).mean(2) + s.z[..., 0]),
            a=conv(3, 8),
            h=head(8),
        ),
        "z",
        torch.randn(1, 8, 65),
    ),
    "an expert without images": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.a(x))) + s.e(pool(x)[:0]).sum(0)),
        a=conv(3, 8),
        b=conv(8, 6),
        e=nn.Linear(3, 6),
        h=head(6),
    ),
}
# Zeros do not stay zeros, or statistics run over channels: only the product's own proof compares them.
CUT_BY_PROOF = {
    "attention whole": Attention,
    "sigmoid features": lambda: Net(
        lambda s, x: s.h(pool(s.b(torch.sigmoid(s.a(x))))), a=conv(3, 8), b=conv(8, 6), h=head(6)
    ),
    "layer norm": lambda: Net(
        lambda s, x: s.h(s.n(pool(s.a(x)))), a=conv(3, 8), n=nn.LayerNorm(8), h=head(8)
    ),
    "layer norm of padded places": lambda: Net(
        lambda s, x: s.h(s.n(F.pad(s.a(x), (0, 2)).movedim(1, -1)).mean((1, 2))),
        a=conv(3, 8),
        n=nn.LayerNorm(8),
        h=head(8),
    ),
    "layer norm without affine": lambda: Net(
        lambda s, x: s.h(s.n(pool(s.a(x)))),
        a=conv(3, 8),
        n=nn.LayerNorm(8, elementwise_affine=False),
        h=head(8),
    ),
    "noise in training": lambda: Net(
        lambda s, x: s.h(pool(s.b(noisy(s.a(x)) if s.training else s.a(x)))),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
    "layers left out by Python's chance": lambda: Net(
        lambda s, x: s.h(pool(s.b(s.a(x)) if s.training and random.random() < 0.5 else s.a(x))),
        a=conv(3, 8),
        b=conv(8, 8),
        h=head(8),
    ),
    "shapes in attributes": lambda: Net(
        lambda s, x: s.h(pool(s.n(s.a(x)))), a=conv(3, 8), n=FromAttributes(8), h=head(8)
    ),
    "RMS norm": lambda: Net(lambda s, x: s.h(s.n(pool(s.a(x)))), a=conv(3, 8), n=nn.RMSNorm(8), h=head(8)),
    "group norm of one group": lambda: Net(
        lambda s, x: s.h(pool(s.n(s.a(x)))), a=conv(3, 8), n=nn.GroupNorm(1, 8), h=head(8)
    ),
    "dropout and noise": lambda: Net(
        lambda s, x: s.h(F.dropout(pool(s.b(F.dropout2d(s.a(x), 0.5, s.training))), 0.3, s.training)),
        a=conv(3, 8),
        b=conv(8, 6),
        h=head(6),
    ),
}
# Zeros would be written to values that are computed anew.
COMPUTED = "old weight norm kept", "masked by torch.prune", "masked bias", "computed bias"
REFUSED = {
    "hook that stores features": (with_hook, "Remove the hooks of a, or"),
    "LSTM behind one convolution": (
        lambda: Net(
            lambda s, x: s.h(s.r(s.a(x).mean(2).transpose(1, 2))[0][:, -1]),
            a=conv(3, 8),
            r=nn.LSTM(8, 6, batch_first=True),
            h=head(6),
        ),
        "a: lstm mixes its channels",
    ),
    "width written into the code": (ReadsItsOwnWidth, "'second'.*keep = \\['second'\\]"),
    "groups that do not fit": (
        lambda: Net(
            lambda s, x: s.h(pool(s.b(s.a(x)) + s.c(s.a(x)))),
            a=conv(3, 12),
            b=conv(12, 12, groups=4),
            c=conv(12, 12, groups=6),
            h=head(12),
        ),
        "a: its filters can only go together; b: its filters",
    ),
    "compiled by TorchScript": (with_compiled_part, "b is compiled by TorchScript"),
    "hand-written norm": (
        lambda: Net(lambda s, x: s.h(pool(s.n(s.a(x)))), a=conv(3, 8), n=RMSNorm2d(8), h=head(8)),
        "a: mean",
    ),
    "mean over channels": (
        lambda: Net(
            lambda s, x: s.h((s.a(x) - s.a(x).mean(1, keepdim=True)).flatten(1)), a=conv(3, 8), h=head(512)
        ),
        "a: mean",
    ),
    "two outputs": (
        lambda: Net(lambda s, x: (s.h(pool(s.a(x))), x), a=conv(3, 8), h=head(8)),
        "auxiliary outputs",
    ),
    "a dictionary": (
        lambda: Net(lambda s, x: {"out": s.h(pool(s.a(x)))}, a=conv(3, 8), h=head(8)),
        "got dict",
    ),
    "batch axis lost": (
        lambda: Net(lambda s, x: s.h(pool(s.a(x))).mean(0), a=conv(3, 8), h=head(8)),
        "shape \\(images, classes\\)",
    ),
    "lazy": (
        lambda: Net(lambda s, x: s.h(pool(s.a(x))), a=nn.LazyConv2d(8, 3), h=head(8)),
        "a.weight is lazy",
    ),
    "fails in training": (
        lambda: Net(lambda s, x: s.h(pool(s.a(x))) if not s.training else s.nothing, a=conv(3, 8), h=head(8)),
        "in training mode",
    ),
    "input of another size": (
        lambda: Net(lambda s, x: s.h(s.a(x).flatten(1)), a=conv(3, 8), h=head(8)),
        "cannot take images of 3x8x8",
    ),
}


def counted(network, shape=SHAPE):
    # Torch's counter fails at parameters that are passed to modules.
    trained = [held.requires_grad_(False) for held in network.parameters() if held.requires_grad]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for held in trained:
        held.requires_grad_(True)
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


def random_filters(groups, seed):
    rng = np.random.default_rng(seed)
    return {
        g.name: np.concatenate(
            [rng.permutation(np.flatnonzero(g.blocks == b))[:quota] for b in range(g.step)]
        )
        for g in groups
        for quota in [int(rng.integers(1, g.width // g.step + 1))]
    }


def zeroed(network, groups, kept):
    """A copy whose removed filters are zero where they are made or passed on."""
    silenced = copy.deepcopy(network)
    for group in groups:
        gone = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members:
            parent, _, attribute = member.layer.rpartition(".")
            target = getattr(silenced.get_submodule(parent), attribute)
            if member.side == "out":
                for held in (
                    [target] if isinstance(target, torch.Tensor) else target.parameters(recurse=False)
                ):
                    transposed = getattr(target, "transposed", False) and held.dim() > 1
                    channels = torch.from_numpy(member.channels[gone].ravel())
                    if transposed:
                        zero_columns(target, channels)
                    else:
                        held.data.movedim(member.axis, 0)[channels] = 0
    return silenced


def zero_columns(layer, channels):
    if layer.groups == layer.in_channels:
        layer.weight.data[channels] = 0
    each = layer.out_channels // layer.groups
    blocks = layer.weight.data.unflatten(0, (layer.groups, -1))
    blocks[channels // each, :, channels % each] = 0


@pytest.mark.parametrize("name", [*CUT, *CUT_BY_PROOF])
def test_counts_and_values_of_random_cuts(name):
    torch.manual_seed(0)
    network = (CUT | CUT_BY_PROOF)[name]()
    groups = generate.find_groups(network, SHAPE)
    costs = generate.derive_costs(network, SHAPE, groups)
    assert (costs.original_macs, costs.original_params) == counted(network)
    images = torch.randn(3, *SHAPE)
    for seed in range(3):
        kept = random_filters(groups, seed)
        small = generate.cut(network, SHAPE, groups, kept)
        assert counted(small) == costs.both([len(kept[g.name]) for g in groups])
        if name in CUT and name not in COMPUTED:
            expected = zeroed(network, groups, kept).eval()(images)
            torch.testing.assert_close(small.eval()(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_refused_by_name(name):
    make, reason = REFUSED[name]
    with pytest.raises(PlanError, match=reason):
        generate.find_groups(make(), SHAPE)


def test_what_is_kept_whole_has_no_group():
    expected = {
        "attention whole": {"up"},
        "Res2Net": {"c"},
        "fixed slice": {"a", "c"},
        "roll": {"a", "c"},
        "recurrent part whole": {"a"},
        "LSTM whole": {"a"},
        "unpooling": {"a.0", "c"},
        "computed bias": {"a", "b"},
        "weight norm kept": {"b", "c"},
        "spectral norm kept": {"a"},
        "einsum head": {"a"},
    }
    for name, groups in expected.items():
        found = generate.find_groups((CUT | CUT_BY_PROOF)[name](), SHAPE)
        assert groups <= {group.name for group in found}, name


def test_parts_of_channels_with_statistics_in_common_go_whole():
    network = Net(lambda s, x: s.h(pool(s.n(s.a(x)))), a=conv(3, 12), n=ChannelNorm(4, 12), h=head(12))
    with pytest.raises(PlanError, match="keep = \\['a'\\]"):  # the size of a part comes from what is cut
        generate.find_groups(network, SHAPE)


def test_keeping_what_a_refusal_names_is_enough():
    groups = generate.find_groups(ReadsItsOwnWidth(), SHAPE, keep=["second"])
    assert [group.name for group in groups] == ["first"]


def test_a_tied_weight_stays_one_and_is_counted_once():
    network = tied()
    groups = generate.find_groups(network, SHAPE)
    small = generate.cut(network, SHAPE, groups, {groups[0].name: [0, 2, 3]})
    assert small.b.weight is small.c.weight
    assert small.b.weight.shape == (3, 3, 3, 3)


@pytest.mark.parametrize(("dimensions", "layer"), [(1, nn.Conv1d), (3, nn.Conv3d)])
def test_convolutions_of_one_and_three_dimensions(dimensions, layer):
    shape = (3, *[6] * dimensions)
    norm = nn.BatchNorm1d if dimensions == 1 else nn.BatchNorm3d
    network = Net(
        lambda s, x: s.h(s.b(s.n(s.a(x)).relu()).flatten(2).mean(2)),
        a=layer(3, 8, 3),
        n=norm(8),
        b=layer(8, 6, 3),
        h=head(6),
    )
    groups = generate.find_groups(network, shape)
    costs = generate.derive_costs(network, shape, groups)
    small = generate.cut(network, shape, groups, {"a": [1, 4], "b": [0, 2, 5]})
    assert counted(small, shape) == costs.both([2, 3])


def test_filters_that_do_not_fit_the_groups_are_refused():
    network = CUT["grouped"]()
    groups = generate.find_groups(network, SHAPE)
    full = {group.name: np.arange(group.width) for group in groups}
    for wrong, reason in [({}, "'a'"), ({"a": [0, 99]}, "0 to 7"), ({"a": [0, 1, 2, 4]}, "equally many")]:
        with pytest.raises(PlanError, match=reason):
            generate.cut(network, SHAPE, groups, full | wrong if wrong else {})
