"""The population table: each column's name, type, unit, legal values and meaning, declared once.

The Arrow schema, the checks on reading and docs/columns.md all come from `COLUMNS`. This module imports
pyarrow and nothing heavier, because `generate` writes with it.
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

    name: str  # Name in the table and in code.
    type: pa.DataType  # Arrow type of the values.
    unit: str  # Unit of the values; "" where there is none.
    meaning: str  # One sentence for docs/columns.md.
    # minimum, maximum: Legal closed range of numeric values.
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # Numeric values must be strictly greater than this.
    choices: tuple[str, ...] = ()  # Legal values of a text column; empty means any.
    required: bool = False  # Whether the analysis cannot do without it.

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


_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()


def _text(name: str, meaning: str, unit: str = "", choices: tuple[str, ...] = ()) -> Column:
    return Column(name, _TEXT, unit, meaning, choices=choices)


def _list(name: str, of: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(name, pa.list_(of), unit, meaning)


def _fraction(name: str, meaning: str) -> Column:
    return Column(name, _REAL, "fraction", meaning, minimum=0.0, maximum=1.0)


def _percent(name: str, meaning: str, required: bool = False) -> Column:
    return Column(name, _REAL, "%", meaning, minimum=0.0, maximum=100.0, required=required)


def _real(name: str, meaning: str, unit: str = "", **legal: Any) -> Column:
    return Column(name, _REAL, unit, meaning, **(legal or {"minimum": 0.0}))


def _whole(name: str, meaning: str, unit: str = "", **legal: Any) -> Column:
    return Column(name, _WHOLE, unit, meaning, **({"above": 0.0} | legal))


_MACS, _PARAMS = "multiply-accumulates", "parameters"
#: In the order of a row's making.
COLUMNS = (
    # Identity.
    _text("subnetwork_id", "sha256 of original, dataset, input size, widths by group, training settings and seed"),
    _text("recipe_id", "the same without the seed: rows that share it are replicates"),
    _text("original_id", "sha256 of the original network's weights"),
    _text("population", "name of the population"),
    # Place.
    _text("network", "architecture, e.g. cifar_resnet8"),
    _text("dataset", "images the network was trained on"),
    _text("input_size", "size of one input", "channels x height x width"),
    _text("regime_axis", "which reduction the regime fixes", choices=("macs", "params", "both")),
    _fraction("regime_target", "target reduction of the pruning regime"),
    _text("space", "recipe space the recipe was drawn from: random, stratified, std:LOW-HIGH, refined:FILE; or "
          "baseline:NAME"),
    # Recipe.
    _text("pruning", "what was removed: filters, weights (unstructured) or 2:4 (two of each four weights); filters "
          "where missing", choices=("filters", "weights", "2:4")),
    _list("widths", _WHOLE, "channels kept, one entry per dependency group; where weights were removed, weights kept "
          "per layer", "channels"),
    _list("densities", _REAL, "share of the weights kept, one entry per layer, where weights were removed", "fraction"),
    _list("group_names", _TEXT, "first producing layer of each dependency group, in the order of widths"),
    _list("ratios_requested", _REAL, "requested pruning ratio, per group", "fraction"),
    _list("ratios_achieved", _REAL, "pruning ratio after rounding to whole channels, per group", "fraction"),
    _fraction("ratio_mean", "mean of the achieved ratios over groups"),
    _fraction("ratio_std", "standard deviation (ddof 0) of the achieved ratios over groups"),
    _text("criterion", "score that chose what stays: group_l2, l1, l2, bn_scale, fpgm, taylor, random; magnitude of "
          "weights"),
    # Cost.
    _whole("macs", "MACs of convolutions and linear layers for one input", _MACS, required=True),
    _whole("params", "number of parameters", _PARAMS, required=True),
    _whole("original_macs", "the original network's MACs", _MACS, required=True),
    _whole("original_params", "the original network's parameters", _PARAMS, required=True),
    # Retraining.
    _text("retraining", "retraining technique", choices=("fine-tune", "lr-rewind", "scratch")),
    _real("epochs", "passes over the training images", "epochs"),
    _real("learning_rate", "peak learning rate"),
    _whole("batch_size", "images per step", "images"),
    _real("weight_decay", "weight decay (not applied to batch norm and biases)"),
    _text("augmentation", "augmentation, by name"),
    Column("seed", _WHOLE, "", "seed of weights, order of images and augmentation", minimum=0.0),
    _real("training_macs", "MACs spent retraining: 3 x macs x images seen", _MACS),
    # Result.
    _percent("original_accuracy", "the original network's test accuracy", required=True),
    _percent("accuracy_pruned", "test accuracy as cut, before anything else"),
    _percent("accuracy_recalibrated", "test accuracy after batch-norm re-estimation on at most 4,096 training images, "
             "before retraining"),
    _percent("accuracy", "test accuracy after retraining", required=True),
    _text("accuracy_kind", "which accuracy it is: of the last epoch or the best over epochs, on test or validation (val)"
          " images", choices=("last", "best_test", "last_val", "best_val", "unknown")),
    _percent("accuracy_val", "validation accuracy after retraining"),
    _real("test_loss", "mean cross-entropy on the test images", "nats"),
    _real("val_loss", "the same on the validation images, in a search", "nats"),
    _real("train_loss", "the same on the training images, in a search", "nats"),
    _whole("n_test", "test images behind accuracy", "images"),
    _real("seconds", "wall time of the training", "s"),
    _real("latency_ms", "median wall time of one forward pass on the device, if the plan requests it", "ms", above=0.0),
    _whole("latency_batch", "images in the forward pass of latency_ms", "images"),
    _text("status", "done, or failed with its reason in error", choices=("done", "failed")),
    _text("error", "why a training failed; empty otherwise"),
    # Provenance.
    _text("code_version", "version (and commit) of generate"),
    _text("torch_version", "version of torch"),
    _text("device", "device the training ran on"),
    _text("cpu_capability", "vector instructions torch used on the CPU"),
    _text("memory_format", "layout of activations: channels_last or contiguous"),
    _text("started_at", "when the training started", "ISO 8601, UTC"),
)  # fmt: skip


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
