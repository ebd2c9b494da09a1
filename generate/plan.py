"""A plan: everything that decides what a population holds, read from TOML into frozen dataclasses.

An unknown key is an error that lists the legal ones; a value of the wrong type or out of range is an error
that names its place. Whether a regime can be reached is checked later, against the network.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popstats.errors import PlanError

DEFAULT_PLAN = Path(__file__).parent / "plans" / "digits.toml"
TECHNIQUES = ("fine-tune", "lr-rewind", "scratch")
CRITERIA = ("group_l2", "l1", "l2", "bn_scale", "fpgm", "taylor", "random")
MAGNITUDE = "magnitude"  # score of weights
AXES = ("macs", "params", "both")
STUDY_AXES = ("name", "width")  # of [network]: a list makes a study
KINDS = ("filters", "weights", "2:4")
# What can be trained beside the recipes of a population, by kind of pruning.
PLAIN_BASELINES = {
    "filters": ("uniform",),
    "weights": ("uniform", "erk", "global", "lamp"),
    "2:4": ("erk", "global", "lamp"),
}
BASELINES = ("torch-pruning", "uniform", "isomorphic", "random")
LEAST_TRAININGS = 8  # of a search: its pilot, one round and its finish
SCHEDULES = ("constant", "one-cycle", "cosine", "steps")
PRECISIONS = ("float32", "bfloat16")
STEMS = ("standard", "cifar")
KEEP_WEIGHTS = ("none", "best", "all")

# Settings that train a small network on the 700 digits to 97 % and more: the default of plans without [original.training].
DIGITS_TRAINING: dict[str, dict[str, Any]] = {
    "original": {
        "epochs": 60.0,
        "batch_size": 50,
        "weight_decay": 1e-3,
        "label_smoothing": 0.1,
        "augmentation": "shift1",
    },
    # A constant rate leaves three times the seed noise after so few steps.
    "fine-tune": {"epochs": 12.0, "learning_rate": 0.1, "schedule": "one-cycle", "batch_size": 100},
    "lr-rewind": {"epochs": 12.0, "batch_size": 100},
    "scratch": {"epochs": 24.0, "learning_rate": 0.2, "batch_size": 100},
}

# What may not change on an existing run folder, and what of a block of recipes may grow.
FIXED = ("name", "network", "pruning", "images", "original", "seed", "search")
GROWING = ("regimes", "count", "seeds", "retraining", "baselines")

# He et al. fine-tune at a small constant rate; a tenth of the peak is the usual choice (Liu et al. 2019, arXiv 1810.05270).
FINE_TUNE_DIVISOR = 10

BAND = re.compile(r"std:([0-9]*\.?[0-9]+)-([0-9]*\.?[0-9]+)")


class Space(str):
    """A recipe space: its text as the plan has it, parsed once."""

    kind: str  # random | stratified | std | refined
    std: tuple[float, float] | None = None  # band of the standard deviation of the ratios, of `std:LOW-HIGH`
    file: Path | None = None  # of `refined:FILE`

    def __new__(cls, text: str) -> Space:
        """Parse it."""
        space = super().__new__(cls, text)
        space.kind, _, argument = text.partition(":")
        if space.kind == "refined" and argument:
            space.file = Path(argument)
        elif ends := BAND.fullmatch(text):
            low, high = map(float, ends.groups())
            space.std = (low, high) if low < high <= 1 else None
        if space.file or space.std or text in ("random", "stratified"):
            return space
        raise PlanError(
            "expected random, stratified, std:LOW-HIGH (such as std:0.05-0.15) or refined:FILE, "
            f"got {text!r}."
        )


STRATIFIED = Space("stratified")


@dataclass(frozen=True)
class TrainingSettings:
    """One training: its budget, its learning rate and its regularisation."""

    # Passes over the training images; may be fractional. Ignored where `training_macs` is given.
    epochs: float = 15.0
    # Budget in multiply-accumulates, 3 x MACs x images seen: narrow networks then get more epochs.
    training_macs: float | None = None
    # Peak rate of SGD with Nesterov momentum; of AdamW (at most 0.003) for transformers.
    learning_rate: float = 0.1
    # constant | one-cycle (linear up over `warm_up`, linear down to 0) | cosine | steps (a tenth at 50 and 75 %).
    schedule: str = "one-cycle"
    # Share of the steps over which the rate rises linearly from 0 (not used by `constant`).
    warm_up: float = 0.2
    batch_size: int = 128  # Images per step.
    # momentum, weight_decay: weight decay is not applied to norms and biases, nor to tokens and positions of transformers.
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0  # Probability mass spread over all classes.
    # Steps joined by "+": flip, shiftN, cropN (N pixels of padding), cutoutN; "none" for none.
    augmentation: str = "none"
    precision: str = "float32"  # float32 | bfloat16 (weights stay float32).

    def identity(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults: what a subnetwork's identity is made from."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        }


@dataclass(frozen=True)
class NetworkPlan:
    """Which architecture is pruned."""

    # cifar_resnet8 | 14 | 20 | 32 | 56 | 110, digits_vit, a torchvision name, or "module:factory".
    name: str = "cifar_resnet8"
    # Factor of its usual channels (0.5: half as many); a factory receives it unchanged. A list, as of names, makes a study.
    width: float | None = None
    # standard | cifar: for small images, torchvision's ResNets start with a 3x3 convolution and no pooling.
    stem: str = "standard"
    keep: tuple[str, ...] = ()  # Layers whose channels are never removed.


@dataclass(frozen=True)
class PruningPlan:
    """What is removed from the network."""

    # filters | weights (unstructured, a density per layer) | 2:4 (two of every four weights are removed, in some layers).
    kind: str = "filters"
    # Weights that every filter keeps with kind = "weights": layers that collapse to single weights fake an optimum.
    floor: int = 2


FILTERS = PruningPlan()


@dataclass(frozen=True)
class ImagesPlan:
    """Which images it is trained and tested on."""

    # digits | cifar10 | cifar100 | fashion-mnist | mnist | image-folder:PATH | module:factory.
    name: str = "digits"
    # Where downloads and decoded image folders lie or go (default: ~/.cache/popstats).
    folder: str = "~/.cache/popstats"
    size: int | None = None  # Height and width that images are resized to (pixels).
    # Training images held back for `accuracy_val`; default a tenth, at most 5,000.
    validation: int | None = None
    limit: int | None = None  # Use at most this many training images (for trials).
    # Share of the test images that is held out of every choice; the others join the validation images. Set by a search.
    statement: float | None = None


@dataclass(frozen=True)
class OriginalPlan:
    """Where the original network's weights come from."""

    source: str = "train"  # train | torchvision:WEIGHTS | PATH.safetensors.
    seed: int = 0  # Seed of its training.
    # How it is trained; with other sources, the schedule that lr-rewind and scratch replay.
    training: TrainingSettings = field(default_factory=TrainingSettings)


@dataclass(frozen=True)
class RecipePlan:
    """One block of recipes: the same number in each of its regimes, each trained with each technique and seed."""

    regimes: tuple[float, ...]  # Target reductions, each in (0, 1).
    count: int  # Recipes per regime; may be 0 with baselines.
    axis: str = "macs"  # macs | params | both: which reduction the regimes fix.
    space: Space = STRATIFIED  # random | stratified | std:LOW-HIGH | refined:FILE.
    seeds: int = 1  # Trainings of each recipe, with seeds 0, 1, ...
    retraining: tuple[str, ...] = ("fine-tune",)  # Techniques: fine-tune, lr-rewind, scratch.
    # Filter score: group_l2 | l1 | l2 | bn_scale | fpgm | taylor | random. Weights always go by "magnitude".
    criterion: str = "group_l2"
    # `stratified` spreads over mean computation budgets between 1/mcb_range and mcb_range.
    mcb_range: float = 2.0
    round_to: int = 1  # Widths are multiples of this (or the full width), and at least this.
    # Trained beside the recipes, in the same ways: uniform; of weights also erk | global | lamp.
    baselines: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchPlan:
    """A search for the best recipe on one budget, with baselines on the same budget."""

    reduction: float  # Share of the cost to remove, in (0, 1).
    axis: str = "macs"  # macs | params: which cost.
    trainings: int = 64  # Trainings of the search.
    # Fresh trainings of the winner and of each baseline, measured on held-out images.
    confirm: int = 8
    baselines: tuple[str, ...] = BASELINES[:2]  # torch-pruning, uniform (always), isomorphic, random.
    technique: str = "fine-tune"  # How networks are retrained.
    criterion: str = "group_l2"  # Filter score.
    draws: int | None = None  # Fewest trainings of a round: the number of workers of the first call.
    pilot: str | None = None  # Run folder of the same original network whose rows come first.

    @property
    def total(self) -> int:
        """Trainings in all; fewer where the winner is one of the baselines."""
        return self.trainings + self.confirm * (1 + len(self.baselines))


@dataclass(frozen=True)
class Plan:
    """What a population holds. Two plans that are equal make the same trainings."""

    name: str  # Name of the population.
    recipes: tuple[RecipePlan, ...] = ()  # Which recipes are drawn, and how often each is trained.
    search: SearchPlan | None = None  # Instead of recipes: which winner is searched for.
    # network, images, original: What is pruned, on which images, and where its weights come from.
    network: NetworkPlan = field(default_factory=NetworkPlan)
    pruning: PruningPlan = field(default_factory=PruningPlan)  # What is removed: filters or weights.
    images: ImagesPlan = field(default_factory=ImagesPlan)
    original: OriginalPlan = field(default_factory=OriginalPlan)
    # Settings of each technique that the recipes use; keys left out are the original's.
    retraining: dict[str, TrainingSettings] = field(default_factory=dict)
    seed: int = 0  # Seed of the recipes.
    # none | best (of each regime) | all: which trained weights the run folder keeps.
    keep_weights: str = "none"
    # Images in the forward pass whose time is measured for each trained network; left out, none is measured.
    latency_batch: int | None = None
    gpus_per_training: float = 1.0  # Share of a GPU that one training takes with the `ray` executor.
    description: str = ""  # A sentence on what the plan is for.

    def as_dict(self) -> dict[str, Any]:
        """Return the resolved plan as plain JSON values, every default spelled out."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @property
    def techniques(self) -> set[str]:
        """How its networks are retrained."""
        searched = set() if self.search is None else {self.search.technique}
        return searched.union(*(block.retraining for block in self.recipes))

    @property
    def criteria(self) -> set[str]:
        """The filter scores that it uses."""
        searched = set() if self.search is None else {self.search.criterion, "group_l2"}
        return searched | {block.criterion for block in self.recipes}


@dataclass(frozen=True)
class Limit:
    """Which numbers are legal."""

    holds: Callable[[Any], bool]
    expected: str


def _at_least(least: float) -> Limit:
    return Limit(lambda value: value >= least, f"at least {least:g}")


type Rule = Limit | tuple[str, ...]  # or the legal texts

_POSITIVE = Limit(lambda value: value > 0, "a number above 0")
_BELOW_ONE = Limit(lambda value: 0 <= value < 1, "0 to 1 (1 excluded)")
_SHARE = Limit(lambda value: 0 < value < 1, "a share between 0 and 1 (0.9 for nine tenths)")
_NAME = Limit(
    lambda value: value not in ("", ".", "..") and not set(value) & set("/\\\0"),
    "a name for the population, which also names its folder",
)

TYPES = {
    int: "a whole number", float: "a number", str: "a text in quotes", Space: "a text in quotes", bool: "true or false",
}  # fmt: skip

# What values are legal beside their type; of lists, each item.
RULES: dict[type, dict[str, Rule]] = {
    Plan: {
        "name": _NAME,
        "keep_weights": KEEP_WEIGHTS,
        "seed": _at_least(0),
        "latency_batch": _at_least(1),
        "gpus_per_training": Limit(lambda v: 0 < v <= 1, "a share of one GPU, above 0 and at most 1"),
    },
    NetworkPlan: {"stem": STEMS, "width": _POSITIVE},
    PruningPlan: {"kind": KINDS, "floor": _at_least(1)},
    ImagesPlan: {"limit": _at_least(1), "size": _at_least(1), "statement": _SHARE},
    OriginalPlan: {"seed": _at_least(0)},
    RecipePlan: {
        "axis": AXES,
        "retraining": TECHNIQUES,
        "regimes": Limit(lambda v: 0 < v < 1, "a reduction between 0 and 1 (0.5 removes half)"),
        "seeds": _at_least(1),
        "round_to": _at_least(1),
        "mcb_range": Limit(lambda v: v > 1, "more than 1 (2 spreads mCB over 1/2 to 2)"),
    },
    SearchPlan: {
        "axis": AXES[:2],
        "criterion": CRITERIA,
        "technique": TECHNIQUES,
        "baselines": BASELINES,
        "reduction": _SHARE,
        "trainings": _at_least(LEAST_TRAININGS),
        "confirm": _at_least(2),
    },
    TrainingSettings: {
        "schedule": SCHEDULES,
        "precision": PRECISIONS,
        "epochs": _POSITIVE,
        "learning_rate": _POSITIVE,
        "training_macs": _POSITIVE,
        "batch_size": _at_least(2),
        "weight_decay": _at_least(0),
        **dict.fromkeys(("warm_up", "momentum", "label_smoothing"), _BELOW_ONE),
    },
}


@dataclass(frozen=True)
class Study:
    """What a plan file holds: one plan, or one per original network where names or widths are listed."""

    name: str
    # By the folder below the study's: "0.5x", "cifar_resnet14", "cifar_resnet14-0.5x"; "" where there is one.
    plans: dict[str, Plan]
    table: dict[str, Any]  # The file's own values, paths made absolute.


def toml_of(table: Mapping[str, Any]) -> str:
    """Return a plan's or a study's values as TOML; read from anywhere, it is the same."""
    return "\n".join(_toml_lines(table)) + "\n"


def _toml_lines(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key, value in table.items():
        if value is not None and key != "recipes" and key not in tables:
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in tables.items():
        yield f"\n[{name}{key}]"
        yield from _toml_lines(value, f"{name}{key}.")
    for block in table.get("recipes", ()):
        yield "\n[[recipes]]"
        yield from _toml_lines(block)


def read_plan(path: Path | str) -> Plan:
    """Read and check a plan of one population; a study of several networks is refused."""
    study = read_study(path)
    if "" not in study.plans:
        raise PlanError(
            f"{path}: expected one network, got a study of {len(study.plans)} ({', '.join(study.plans)}). Make it with "
            "`python -m generate.population`; each of its run folders holds a plan of one."
        )
    return study.plans[""]


def read_study(path: Path | str) -> Study:
    """Read and check a plan of one or several populations."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlanError(
            f"There is no plan at {path}. Give the path of a .toml file; the shipped plans are in "
            f"{DEFAULT_PLAN.parent}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise PlanError(
            f"{path} cannot be read ({error.strerror}). Give the path of a plan, a .toml file; to continue a run "
            "folder, name it with --out."
        ) from error
    for block in table.get(
        "recipes", []
    ):  # relative to the file, so that the plan means the same from everywhere
        space = block.get("space", "") if isinstance(block, dict) else ""
        if isinstance(space, str) and space.startswith("refined:"):
            file = path.parent / Path(space.removeprefix("refined:")).expanduser()
            block["space"] = f"refined:{file.resolve()}"
    plans = dict(_expanded(table, str(path)))
    return Study(table["name"], plans, table)


def _expanded(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Plan]]:
    """Yield the plan of each original network, with its folder."""
    network = table.get("network")
    given = network if isinstance(network, Mapping) else {}
    listed = {key: given[key] for key in STUDY_AXES if isinstance(given.get(key), list)}
    if not listed:
        yield "", plan_from_dict(table, where)
        return
    for key, values in listed.items():
        if not values or any(values.count(value) > 1 for value in values):
            raise PlanError(f"{where}, network, {key}: expected different values in the list, got {values}.")
    for chosen in itertools.product(*listed.values()):
        parts = [f"{v:g}x" if isinstance(v, int | float) else str(v).replace(":", "-") for v in chosen]
        folder = "-".join(parts)
        own: dict[str, Any] = {"network": {**given, **dict(zip(listed, chosen, strict=True))}}
        if isinstance(table.get("name"), str):
            own["name"] = f"{table['name']}-{folder}"
        plan = plan_from_dict({**table, **own}, where)
        # Steps of rounding, which are the first width's, change in proportion.
        own_width, first = (plan.network.width or 1, listed["width"][0]) if "width" in listed else (1, 1)
        steps = [b.round_to * own_width / first if b.round_to > 1 else 1 for b in plan.recipes]
        if wrong := [step for step in steps if step != round(step)]:
            raise PlanError(
                f"{where}, recipes, round_to: in proportion to the width, it becomes {wrong[0]:g} channels at width "
                f"{plan.network.width}; choose a round_to of the first width that stays whole at each width."
            )
        blocks = (dataclasses.replace(b, round_to=int(s)) for b, s in zip(plan.recipes, steps, strict=True))
        yield folder, dataclasses.replace(plan, recipes=tuple(blocks))


def plan_from_dict(table: Mapping[str, Any], where: str = "plan") -> Plan:
    """Build and check a plan from nested plain values, as TOML or a stored population's footer holds them."""
    table = dict(table)
    retraining = table.pop("retraining", {})
    plan = _build(Plan, table, where)
    usual: Mapping[str, Any] = {}
    if plan.images.name == "digits" and "training" not in table.get("original", {}):
        usual = DIGITS_TRAINING
        training = dataclasses.replace(plan.original.training, **usual["original"])
        plan = dataclasses.replace(plan, original=dataclasses.replace(plan.original, training=training))
    settings = {}
    for name in sorted(plan.techniques | set(retraining)):
        _check(TECHNIQUES, name, f"{where}, [retraining]")
        inherited: dict[str, Any] = dataclasses.asdict(plan.original.training)
        if name == "fine-tune":
            inherited |= {"schedule": "constant"}
            inherited["learning_rate"] /= FINE_TUNE_DIVISOR
        inherited |= usual.get(name, {})
        place, given = f"{where}, [retraining.{name}]", retraining.get(name, {})
        if not isinstance(given, Mapping):
            raise PlanError(f"{place}: expected a table of settings, got {given!r}.")
        settings[name] = _build(TrainingSettings, inherited | dict(given), place)
    recipes = tuple(_checked_block(b, plan, f"{where}, recipes[{i}]") for i, b in enumerate(plan.recipes))
    if not recipes and plan.search is None:
        raise PlanError(f"{where}: no recipes. Add at least one [[recipes]] block with regimes and count.")
    if plan.search is not None and plan.pruning.kind != "filters":
        raise PlanError(f"{where}, pruning.kind: a search prunes filters, got {plan.pruning.kind!r}.")
    return dataclasses.replace(plan, retraining=settings, recipes=recipes)


def only_adds(old: Plan, new: Plan) -> bool:
    """Whether `new` holds all of `old` and adds at most recipes, regimes, seeds, techniques or baselines."""
    fixed = (getattr(old, name) == getattr(new, name) for name in FIXED)
    same = all(new.retraining.get(name) == settings for name, settings in old.retraining.items())
    longer = len(new.recipes) >= len(old.recipes)
    return all(fixed) and same and longer and all(map(_block_only_adds, old.recipes, new.recipes))


def _block_only_adds(old: RecipePlan, new: RecipePlan) -> bool:
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in GROWING}
    grown = dataclasses.replace(old, **{name: later for name, (_, later) in pairs.items()})
    return grown == new and all(
        set(later) >= set(held) if isinstance(held, tuple) else later >= held
        for held, later in pairs.values()
    )


def _build[T](cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build one dataclass from a table, checking keys and types and descending into nested dataclasses."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise PlanError(
                f"{where}: unknown key {key!r}.{_meant(key, fields)} Legal keys: {', '.join(fields)}."
            )
    hints = typing.get_type_hints(cls)
    values = {key: _convert(hints[key], value, f"{where}, {key}") for key, value in table.items()}
    for key, rule in RULES.get(cls, {}).items():
        if key in values:
            _check(rule, values[key], f"{where}, {key}")
    unset = dataclasses.MISSING
    missing = [n for n, f in fields.items() if n not in values and f.default is unset is f.default_factory]
    if missing:
        raise PlanError(
            f"{where}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            f"Legal keys: {', '.join(fields)}."
        )
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as the type that the field declares, or say what was expected."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(typing.cast("type[Any]", hint), value, where)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return None if value is None else _convert(typing.get_args(hint)[0], value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if hint is Space and isinstance(value, str):
        try:
            return Space(value)
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from None
    raise PlanError(f"{where}: expected {TYPES.get(hint, 'a list or table')}, got {value!r}.")


def _meant(key: str, legal: Iterable[str]) -> str:
    """Return the legal word that was probably meant, as a question."""
    close = difflib.get_close_matches(key, list(legal), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check(rule: Rule, value: Any, where: str) -> None:
    """Refuse a value, or an item of a list, that the rule does not allow."""
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(rule, tuple) and item not in rule:
            raise PlanError(f"{where}: expected {' | '.join(rule)}, got {item!r}.{_meant(item, rule)}")
        if isinstance(rule, Limit) and item is not None and not rule.holds(item):
            raise PlanError(f"{where}: expected {rule.expected}, got {item!r}.")


def _checked_block(block: RecipePlan, plan: Plan, where: str) -> RecipePlan:
    """Return a block of recipes with the score of its kind of pruning; refuse contradictions."""
    if not block.regimes or not block.retraining:
        raise PlanError(f"{where}: expected at least one regime and one retraining technique, got none.")
    if len(set(block.regimes)) < len(block.regimes) or len(set(block.retraining)) < len(block.retraining):
        raise PlanError(
            f"{where}: regimes and retraining techniques must not repeat; got {block.regimes} and "
            f"{block.retraining}."
        )
    kind = plan.pruning.kind
    if kind != "filters" and block.criterion == RecipePlan.criterion:
        block = dataclasses.replace(block, criterion=MAGNITUDE)
    _check(_at_least(0 if block.baselines else 1), block.count, f"{where}, count")
    _check(PLAIN_BASELINES[kind], block.baselines, f"{where}, baselines")
    _check(CRITERIA if kind == "filters" else (MAGNITUDE,), block.criterion, f"{where}, criterion")
    if block.baselines and block.axis == "both":
        raise PlanError(f"{where}, baselines: a baseline meets one budget; got axis = 'both'.")
    if kind != "filters" and block.round_to != 1:
        raise PlanError(f"{where}, round_to: only numbers of filters are rounded; leave it out.")
    return block
