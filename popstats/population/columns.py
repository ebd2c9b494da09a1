"""The population table: each column's name, type, unit, legal values and meaning, declared once.

The Arrow schema, the checks on reading, docs/columns.md and the axis labels of the report
all come from `COLUMNS`. This module imports pyarrow and nothing heavier, because `generate` writes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
METADATA_KEY = b"popstats"


@dataclass(frozen=True)
class Column:
    """One column of the population table."""

    name: str  # Name in the table, in code and (through `label`) on axes.
    type: pa.DataType  # Arrow type of the values.
    unit: str  # Unit of the values; "" where there is none.
    meaning: str  # One sentence for docs/columns.md.
    # Which part of the row it belongs to: identity, place, recipe, cost, retraining, result, provenance.
    station: str
    # minimum, maximum: Legal closed range of numeric values.
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # Numeric values must be strictly greater than this.
    choices: tuple[str, ...] = ()  # Legal values of a text column; empty means any.
    required: bool = False  # Whether the analysis cannot do without it.

    @property
    def label(self) -> str:
        """Axis label: the name in words, with its unit."""
        words = self.name.replace("_", " ").replace("macs", "MACs")
        return f"{words} ({self.unit})" if self.unit else words

    @property
    def legal(self) -> str:
        """The legal values in words, for error messages and docs/columns.md."""
        if self.choices:
            return " | ".join(self.choices)
        if self.above is not None:
            return f"> {self.above:g}" + (f", <= {self.maximum:g}" if self.maximum is not None else "")
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f">= {self.minimum:g}"
        return "any"


_text, _real, _whole = pa.string(), pa.float64(), pa.int64()
_texts, _reals, _wholes = map(pa.list_, (_text, _real, _whole))
_percent: dict[str, Any] = {"unit": "%", "minimum": 0.0, "maximum": 100.0}


def _c(station: str, name: str, kind: pa.DataType, unit: str, meaning: str, **legal: Any) -> Column:
    return Column(name=name, type=kind, unit=unit, meaning=meaning, station=station, **legal)


def _pc(station: str, name: str, meaning: str, **more: Any) -> Column:
    return Column(name=name, type=_real, meaning=meaning, station=station, **_percent, **more)


# fmt: off
COLUMNS: tuple[Column, ...] = (
    _c("identity", "subnetwork_id", _text, "",
       "sha256 of original, dataset, input size, widths by group, training settings and seed"),
    _c("identity", "recipe_id", _text, "", "the same without the seed: rows that share it are replicates"),
    _c("identity", "original_id", _text, "", "sha256 of the original network's weights"),
    _c("identity", "population", _text, "", "name of the population"),
    _c("place", "network", _text, "", "architecture, e.g. cifar_resnet8"),
    _c("place", "dataset", _text, "", "images the network was trained on"),
    _c("place", "input_size", _text, "channels x height x width", "size of one input"),
    _c("place", "regime_axis", _text, "",
       "which reduction the regime fixes", choices=("macs", "params", "both")),
    _c("place", "regime_target", _real, "fraction",
       "target reduction of the pruning regime", minimum=0.0, maximum=1.0),
    _c("place", "space", _text, "",
       "recipe space the recipe was drawn from: random, stratified, std:LOW-HIGH, refined:FILE; or baseline:NAME"),
    _c("recipe", "pruning", _text, "",
       "what was removed: filters, weights (unstructured) or 2:4 (two of each four weights); filters where missing",
       choices=("filters", "weights", "2:4")),
    _c("recipe", "widths", _wholes, "channels",
       "channels kept, one entry per dependency group; where weights were removed, weights kept per layer"),
    _c("recipe", "densities", _reals, "fraction",
       "share of the weights kept, one entry per layer, where weights were removed"),
    _c("recipe", "group_names", _texts, "",
       "first producing layer of each dependency group, in the order of widths"),
    _c("recipe", "ratios_requested", _reals, "fraction", "requested pruning ratio, per group"),
    _c("recipe", "ratios_achieved", _reals, "fraction",
       "pruning ratio after rounding to whole channels, per group"),
    _c("recipe", "ratio_mean", _real, "fraction",
       "mean of the achieved ratios over groups", minimum=0.0, maximum=1.0),
    _c("recipe", "ratio_std", _real, "fraction",
       "standard deviation (ddof 0) of the achieved ratios over groups", minimum=0.0, maximum=1.0),
    _c("recipe", "criterion", _text, "",
       "score that chose what stays: group_l2, l1, l2, bn_scale, fpgm, taylor, random; magnitude of weights"),
    _c("cost", "macs", _whole, "multiply-accumulates",
       "MACs of convolutions and linear layers for one input", above=0.0, required=True),
    _c("cost", "params", _whole, "parameters", "number of parameters", above=0.0, required=True),
    _c("cost", "original_macs", _whole, "multiply-accumulates",
       "the original network's MACs", above=0.0, required=True),
    _c("cost", "original_params", _whole, "parameters",
       "the original network's parameters", above=0.0, required=True),
    _c("retraining", "retraining", _text, "",
       "retraining technique", choices=("fine-tune", "lr-rewind", "scratch")),
    _c("retraining", "epochs", _real, "epochs", "passes over the training images", minimum=0.0),
    _c("retraining", "learning_rate", _real, "", "peak learning rate", minimum=0.0),
    _c("retraining", "batch_size", _whole, "images", "images per step", above=0.0),
    _c("retraining", "weight_decay", _real, "",
       "weight decay (not applied to batch norm and biases)", minimum=0.0),
    _c("retraining", "augmentation", _text, "", "augmentation, by name"),
    _c("retraining", "seed", _whole, "", "seed of weights, order of images and augmentation", minimum=0.0),
    _c("retraining", "training_macs", _real, "multiply-accumulates",
       "MACs spent retraining: 3 x macs x images seen", minimum=0.0),
    _pc("result", "original_accuracy", "the original network's test accuracy", required=True),
    _pc("result", "accuracy_pruned", "test accuracy as cut, before anything else"),
    _pc("result", "accuracy_recalibrated",
       "test accuracy after batch-norm re-estimation on at most 4,096 training images, before retraining"),
    _pc("result", "accuracy", "test accuracy after retraining", required=True),
    _c("result", "accuracy_kind", _text, "",
       "which accuracy it is: of the last epoch or the best over epochs, on test or validation (val) images",
       choices=("last", "best_test", "last_val", "best_val", "unknown")),
    _pc("result", "accuracy_val", "validation accuracy after retraining"),
    _c("result", "test_loss", _real, "nats", "mean cross-entropy on the test images", minimum=0.0),
    _c("result", "val_loss", _real, "nats", "the same on the validation images, in a search", minimum=0.0),
    _c("result", "train_loss", _real, "nats", "the same on the training images, in a search", minimum=0.0),
    _c("result", "n_test", _whole, "images", "test images behind accuracy", above=0.0),
    _c("result", "seconds", _real, "s", "wall time of the training", minimum=0.0),
    _c("result", "latency_ms", _real, "ms",
       "median wall time of one forward pass on the device, where the plan asks for it", above=0.0),
    _c("result", "latency_batch", _whole, "images", "images in the forward pass of latency_ms", above=0.0),
    _c("result", "status", _text, "", "done, or failed with its reason in error", choices=("done", "failed")),
    _c("result", "error", _text, "", "why a training failed; empty otherwise"),
    _c("provenance", "code_version", _text, "", "version (and commit) of generate"),
    _c("provenance", "torch_version", _text, "", "version of torch"),
    _c("provenance", "device", _text, "", "device the training ran on"),
    _c("provenance", "cpu_capability", _text, "", "vector instructions torch used on the CPU"),
    _c("provenance", "memory_format", _text, "", "layout of activations: channels_last or contiguous"),
    _c("provenance", "started_at", _text, "ISO 8601, UTC", "when the training started"),
)
# fmt: on


@dataclass(frozen=True)
class ImageSet:
    """What is known of a set of images: an original far under what is usual on it did not learn."""

    classes: int
    input_size: str
    usual: float  # Test accuracy, percent, that a small trained network reaches on images of that size.


#: By name, in small letters without marks.
SETS = {
    "digits": ImageSet(10, "1x8x8", 95.0),
    "mnist": ImageSet(10, "1x28x28", 98.0),
    "fashionmnist": ImageSet(10, "1x28x28", 87.0),
    "cifar10": ImageSet(10, "3x32x32", 80.0),
    "cifar100": ImageSet(100, "3x32x32", 45.0),
    "imagenet": ImageSet(1000, "3x224x224", 50.0),
}


REQUIRED: tuple[str, ...] = tuple(c.name for c in COLUMNS if c.required)
_BY_NAME = {c.name: c for c in COLUMNS}


def column(name: str) -> Column:
    """Return the declaration of one column."""
    return _BY_NAME[name]


def schema(metadata: Mapping[str, Any] | None = None) -> pa.Schema:
    """Return the Arrow schema of the full table, with `metadata` in its footer."""
    fields = [pa.field(c.name, c.type) for c in COLUMNS]
    return pa.schema(fields, metadata=footer(metadata or {}))


def footer(metadata: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return `metadata` as Arrow schema metadata: canonical JSON under one key, with the schema's version."""
    content = {"schema_version": SCHEMA_VERSION, **metadata}
    return {METADATA_KEY: json.dumps(content, sort_keys=True).encode()}


def read_footer(arrow_schema: pa.Schema) -> dict[str, Any]:
    """Return the population metadata kept in an Arrow schema; empty for a foreign file."""
    raw = (arrow_schema.metadata or {}).get(METADATA_KEY)
    return {} if raw is None else dict(json.loads(raw))
