"""Small transformers in the shapes that people write them: attention modules, and a network to put them into."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer, VisionTransformer

WIDTH, HEADS, HIDDEN, TOKENS, CLASSES = 24, 4, 40, 16, 5


class Fused(nn.Module):
    """As timm writes it: one weight for queries, keys and values, and attributes for all sizes."""

    def __init__(self, norm=None, products=True):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim, self.products = HEADS, WIDTH // HEADS, WIDTH, products
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q_norm, self.k_norm = (nn.Identity() if norm is None else norm(self.head_dim) for _ in "qk")
        self.drop = nn.Dropout(0.1)

    def split(self, tokens):
        batch, count, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def mix(self, q, k, v):
        if not self.products:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self.drop.p if self.training else 0.0)
        weights = (q * self.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.drop(weights) @ v

    def forward(self, tokens):
        mixed = self.mix(*self.split(tokens)).transpose(1, 2)
        return self.proj(mixed.reshape(*tokens.shape[:2], self.attn_dim))


class FromShape(Fused):
    """As timm wrote it before: the head's size from the shape of what comes in."""

    def forward(self, tokens):
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.mix(q, k, v).transpose(1, 2).reshape(batch, count, width))


class OutFromShape(Fused):
    """The inner width from the shape of what comes in."""

    def forward(self, tokens):
        return self.proj(self.mix(*self.split(tokens)).transpose(1, 2).reshape(*tokens.shape))


class TwoFromShape(nn.Module):
    """Queries alone, keys and values in one layer and of fewer places (PVT)."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.q, self.kv, self.proj = (nn.Linear(WIDTH, width) for width in (WIDTH, 2 * WIDTH, WIDTH))
        self.sr, self.norm = nn.Conv2d(WIDTH, WIDTH, 2, 2), nn.LayerNorm(WIDTH)

    def forward(self, tokens):
        batch, count, width = tokens.shape
        q = self.q(tokens).reshape(batch, count, self.num_heads, width // self.num_heads).transpose(1, 2)
        fewer = self.sr(tokens.transpose(1, 2).reshape(batch, width, 4, 4)).reshape(batch, width, -1)
        kv = self.kv(self.norm(fewer.transpose(1, 2)))
        k, v = kv.reshape(batch, -1, 2, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class SplitByWidth(nn.Module):
    """As small language models have it: parts of a stored width, a mask in a buffer."""

    def __init__(self):
        super().__init__()
        self.n_head, self.n_embd = HEADS, WIDTH
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.ones(32, 32).tril()[None, None])

    def forward(self, tokens):
        batch, count, width = tokens.size()
        parts = self.c_attn(tokens).split(self.n_embd, dim=2)
        q, k, v = (
            part.view(batch, count, self.n_head, width // self.n_head).transpose(1, 2) for part in parts
        )
        weights = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        weights = weights.masked_fill(self.mask[:, :, :count, :count] == 0, -math.inf).softmax(-1)
        return self.c_proj((weights @ v).transpose(1, 2).contiguous().view(batch, count, width))


class Interleaved(Fused):
    """Rows in another order: (heads, dimension, q k v)."""

    def split(self, tokens):
        return self.qkv(tokens).unflatten(-1, (self.num_heads, -1, 3)).permute(4, 0, 2, 1, 3).unbind(0)


class HeadsFirst(Fused):
    """Rows in another order: (heads, q k v, dimension)."""

    def split(self, tokens):
        return self.qkv(tokens).unflatten(-1, (self.num_heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)


class Chunked(Fused):
    """Parts first, heads then."""

    def split(self, tokens):
        parts = self.qkv(tokens).chunk(3, -1)
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]


class BiasTable(Fused):
    """A bias for each pair of places and head, looked up in a table (Swin)."""

    def __init__(self, side=4, **options):
        super().__init__(**options)
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, HEADS))
        places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None] + side - 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])

    def mix(self, q, k, v):
        bias = self.table[self.index.view(-1)].view(*self.index.shape, -1).permute(2, 0, 1)[None]
        if not self.products:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v


class Bias(nn.Module):
    """A bias for each head from a module of its own, which shapes it by an attribute and keeps it for evaluation."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.bias_shape, self.cache = HEADS, (TOKENS, TOKENS, HEADS), {}
        self.table = nn.Parameter(torch.randn(TOKENS**2, HEADS))

    def train(self, mode=True):
        self.cache = {}
        return super().train(mode)

    def forward(self):
        if self.training or not self.cache:
            self.cache["bias"] = self.table.detach().view(self.bias_shape).permute(2, 0, 1)
        return self.cache["bias"]


class WithBias(Fused):
    """As timm writes it: heads are an attribute of a module inside the attention too (MaxViT, LeViT)."""

    def __init__(self):
        super().__init__()
        self.bias, self.window_area = Bias(), WIDTH

    def mix(self, q, k, v):
        return (q @ k.transpose(-2, -1) + self.bias()).softmax(-1) @ v


class Cosine(Fused):
    """Normalised queries and keys, a temperature for each head (Swin v2)."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1))

    def mix(self, q, k, v):
        products = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (products * self.temperature.exp()).softmax(-1) @ v


class Rotary(Fused):
    """Queries and keys turned by their places."""

    def mix(self, q, k, v):
        places = torch.arange(q.shape[2], dtype=q.dtype)[:, None]
        angles = places * torch.arange(1, self.head_dim // 2 + 1, dtype=q.dtype)
        return super().mix(self.turn(q, angles), self.turn(k, angles), v)

    @staticmethod
    def turn(tokens, angles):
        left, right = tokens.chunk(2, -1)
        sine, cosine = angles.sin(), angles.cos()
        return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)


class OverChannels(Fused):
    """Attention of channels to channels inside each head (XCiT)."""

    def mix(self, q, k, v):
        weights = F.normalize(q, dim=-2).transpose(-2, -1) @ F.normalize(k, dim=-2)
        return (weights.softmax(-1) @ v.transpose(-2, -1)).transpose(-2, -1)


class Linearised(Fused):
    """Softmax over queries and over keys, products of keys and values first."""

    def mix(self, q, k, v):
        return q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)


class Talking(Fused):
    """Heads that are mixed with each other."""

    def __init__(self):
        super().__init__()
        self.talk = nn.Linear(HEADS, HEADS)

    def mix(self, q, k, v):
        products = self.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return products.softmax(-1) @ v


class Separate(nn.Module):
    """Four layers, products by einsum, no size but the number of heads."""

    def __init__(self):
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in "qkvo")

    def forward(self, tokens):
        q, k, v = (layer(tokens).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.o(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


class HeadDimension(nn.Module):
    """As language models have it: the head's dimension alone, keys and values for several heads each."""

    def __init__(self, kept=HEADS, repeated=True):
        super().__init__()
        self.head_dim, self.repeats = WIDTH // HEADS, HEADS // kept if repeated else 1
        self.q_proj, self.o_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, kept * self.head_dim) for _ in "kv")

    def forward(self, tokens):
        shape = (*tokens.shape[:-1], -1, self.head_dim)
        q, k, v = (
            layer(tokens).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        k, v = (part.repeat_interleave(self.repeats, 1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
        return self.o_proj(mixed.transpose(1, 2).reshape(*tokens.shape[:-1], -1))


class InnerWidth(nn.Module):
    """A head's dimension that does not divide the embedding (T5)."""

    def __init__(self):
        super().__init__()
        self.d_model, self.key_value_proj_dim, self.n_heads, self.inner_dim = WIDTH, 5, HEADS, 5 * HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, self.inner_dim, bias=False) for _ in "qkv")
        self.o = nn.Linear(self.inner_dim, WIDTH, bias=False)

    def forward(self, hidden_states):
        batch = len(hidden_states)
        q, k, v = (
            layer(hidden_states).view(batch, -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = (q @ k.transpose(3, 2)).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).contiguous().view(batch, -1, self.inner_dim))


class Repeated(HeadDimension):
    """Keys and values repeated by expanding, all sizes in attributes, a causal kernel (Llama)."""

    def __init__(self):
        super().__init__(kept=HEADS // 2)
        self.hidden_size, self.num_heads, self.num_key_value_heads = WIDTH, HEADS, HEADS // 2

    def forward(self, tokens):
        batch, count, _ = tokens.size()
        q = self.q_proj(tokens).view(batch, count, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = (
            layer(tokens).view(batch, count, self.num_key_value_heads, self.head_dim).transpose(1, 2)
            for layer in (self.k_proj, self.v_proj)
        )
        shape = (batch, self.num_key_value_heads, self.repeats, count, self.head_dim)
        k, v = (part[:, :, None].expand(shape).reshape(q.shape) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, count, self.hidden_size))


class HuggingFaceSelf(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = HEADS, WIDTH // HEADS, WIDTH
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in "qkv")
        self.dropout = nn.Dropout(0.1)

    def heads(self, tokens):
        shape = (*tokens.size()[:-1], self.num_attention_heads, self.attention_head_size)
        return tokens.view(shape).permute(0, 2, 1, 3)

    def forward(self, hidden):
        query = self.heads(self.query(hidden))
        key, value = self.heads(self.key(hidden)), self.heads(self.value(hidden))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        context = torch.matmul(self.dropout(scores.softmax(-1)), value).permute(0, 2, 1, 3).contiguous()
        return (context.view((*context.size()[:-2], self.all_head_size)),)


class HuggingFace(nn.Module):
    """Queries, keys and values in one module, the output layer in another."""

    def __init__(self):
        super().__init__()
        self.attention, self.output = (
            HuggingFaceSelf(),
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)),
        )

    def forward(self, hidden):
        return self.output(self.attention(hidden)[0])


class Torch(nn.Module):
    """nn.MultiheadAttention, called in the ways that it allows."""

    def __init__(self, first=True, weights=False, masked=False, reads=False, **options):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=first, dropout=0.1, **options)
        self.first, self.weights, self.masked, self.reads = first, weights or reads, masked, reads

    def forward(self, tokens):
        tokens = tokens if self.first else tokens.transpose(0, 1)
        count = tokens.shape[1 if self.first else 0]
        mask = torch.ones(count, count, dtype=torch.bool).triu(1) if self.masked else None
        found, weights = self.inner(tokens, tokens, tokens, attn_mask=mask, need_weights=self.weights)
        found = found + weights @ tokens if self.reads else found
        return found if self.first else found.transpose(0, 1)


class Unnamed(nn.Module):
    """The number of heads in the code alone."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    def forward(self, tokens):
        if not self.training:
            return tokens
        return tokens * tokens.new_empty(len(tokens), 1, 1).bernoulli_(0.8).div_(0.8)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, tokens):
        return tokens * self.gamma


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.down = nn.Linear(WIDTH, 2 * HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, tokens):
        gate, value = self.both(tokens).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    def __init__(self, attention, post=False, parallel=False, norm=nn.LayerNorm, mlp=None):
        super().__init__()
        self.post, self.parallel = post, parallel
        self.norm1, self.norm2 = norm(WIDTH), norm(WIDTH)
        perceptron = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.attn, self.mlp = attention(), mlp() if mlp else perceptron
        self.drop, self.scale = DropPath(), Scale()

    def forward(self, tokens):
        if self.post:
            tokens = self.norm1(tokens + self.drop(self.attn(tokens)))
            return self.norm2(tokens + self.scale(self.mlp(tokens)))
        if self.parallel:
            return tokens + self.attn(self.norm1(tokens)) + self.mlp(self.norm2(tokens))
        tokens = tokens + self.drop(self.scale(self.attn(self.norm1(tokens))))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """Patches by a convolution or by reshaping, class token and registers or the mean, positions or a table."""

    def __init__(self, attention, class_token=True, table=False, registers=0, patches="conv", **options):
        super().__init__()
        self.patches, count = patches, TOKENS + class_token
        self.embed = nn.Conv2d(3, WIDTH, 2, 2) if patches == "conv" else nn.Linear(12, WIDTH)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH)) if class_token else None
        self.registers = nn.Parameter(torch.randn(1, registers, WIDTH)) if registers else None
        self.positions = nn.Embedding(count, WIDTH) if table else nn.Parameter(torch.randn(1, count, WIDTH))
        self.blocks = nn.Sequential(*(Block(attention, **options) for _ in range(2)))
        self.norm, self.head = options.get("norm", nn.LayerNorm)(WIDTH), nn.Linear(WIDTH, CLASSES)

    def embedded(self, images):
        if self.patches == "conv":
            return self.embed(images).flatten(2).transpose(1, 2)
        tiles = images.unfold(2, 2, 2).unfold(3, 2, 2)
        return self.embed(tiles.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))

    def forward(self, images):
        tokens = self.embedded(images)
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(images), -1, -1), tokens], 1)
        places = self.positions
        tokens = tokens + (
            places(torch.arange(tokens.shape[1])) if isinstance(places, nn.Embedding) else places
        )
        if self.registers is not None:
            tokens = torch.cat([tokens, self.registers.expand(len(images), -1, -1)], 1)
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens.mean(1) if self.cls is None else tokens[:, 0])


class Encoder(nn.Module):
    """torch's own encoder."""

    def __init__(self, first, pre):
        super().__init__()
        self.embed, self.first, self.head = nn.Conv2d(3, WIDTH, 2, 2), first, nn.Linear(WIDTH, CLASSES)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=first, norm_first=pre)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).permute(*((0, 2, 1) if self.first else (2, 0, 1)))
        return self.head(self.encoder(tokens).mean(1 if self.first else 0))


def torchvision_vit():
    return VisionTransformer(8, 2, 2, HEADS, WIDTH, HIDDEN, 0.1, 0.1, num_classes=CLASSES)


def torchvision_swin(**options):
    return SwinTransformer([2, 2], 12, [2, 1], [2, 4], [2, 2], num_classes=CLASSES, **options)


# By name: the network, and how many heads each of its two blocks can lose as units.
CUT = {
    "fused": lambda: ViT(Fused),
    "fused, norms of heads": lambda: ViT(lambda: Fused(nn.LayerNorm), registers=2),
    "kernel": lambda: ViT(lambda: Fused(products=False), class_token=False, post=True),
    "interleaved": lambda: ViT(Interleaved, table=True),
    "heads first": lambda: ViT(HeadsFirst, mlp=SwiGLU),
    "chunked": lambda: ViT(Chunked, patches="linear"),
    "bias table": lambda: ViT(BiasTable, class_token=False),
    "bias table in the kernel": lambda: ViT(lambda: BiasTable(products=False), class_token=False),
    "bias from a module": lambda: ViT(WithBias, class_token=False),
    "cosine": lambda: ViT(Cosine, post=True),
    "rotary": lambda: ViT(Rotary, parallel=True),
    "over channels": lambda: ViT(OverChannels),
    "linearised": lambda: ViT(Linearised),
    "separate": lambda: ViT(Separate, norm=nn.RMSNorm),
    "head dimension": lambda: ViT(HeadDimension),
    "one key for all, broadcast": lambda: ViT(lambda: HeadDimension(kept=1, repeated=False)),
    "inner width": lambda: ViT(InnerWidth),
    "hugging face": lambda: ViT(HuggingFace, table=True),
    "torch": lambda: ViT(Torch),
    "torch, weights": lambda: ViT(lambda: Torch(weights=True, bias=False)),
    "torch, sequence first": lambda: ViT(lambda: Torch(first=False)),
    "torch, masked": lambda: ViT(lambda: Torch(masked=True)),
    "torch's encoder": lambda: Encoder(first=True, pre=False),
    "torch's encoder, sequence first": lambda: Encoder(first=False, pre=True),
    "torchvision": torchvision_vit,
}
# Keys and values for two heads each go with both.
PAIRS = {
    "grouped queries": lambda: ViT(lambda: HeadDimension(kept=HEADS // 2)),
    "grouped, expanded": lambda: ViT(Repeated, class_token=False),
    "grouped by the kernel": lambda: ViT(lambda: HeadDimension(kept=HEADS // 2, repeated=False)),
}
# A head's size comes from the shape of what comes in: heads go with their share of the embedding, in all blocks.
TIED = {
    "from shape": lambda: ViT(FromShape),
    "out from shape": lambda: ViT(OutFromShape, class_token=False),
    "two from shape": lambda: ViT(TwoFromShape, class_token=False, post=True),
    "split by width": lambda: ViT(SplitByWidth, class_token=False, table=True),
}
WHOLE = {
    "talking": lambda: ViT(Talking),
    "no number of heads": lambda: ViT(Unnamed),
    "torch, more keys": lambda: ViT(lambda: Torch(add_bias_kv=True)),
    "one key for all": lambda: ViT(lambda: HeadDimension(kept=1)),
}
REFUSED = {
    "torch, weights read": (lambda: ViT(lambda: Torch(reads=True)), "blocks.0.attn.inner.q_proj"),
}
