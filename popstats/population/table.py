"""A population: one original network and the subnetworks pruned from it, one row per training."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from popstats.errors import PopstatsError, PopulationError
from popstats.findings import Finding
from popstats.population import regimes as spaces
from popstats.population.columns import REQUIRED, column, footer
from popstats.population.notes import notes_of
from popstats.population.validation import (
    check_accuracy_kind,
    check_direction,
    check_recipes,
    check_table,
    check_widths,
    chosen,
    failed_rows,
    lists_from_text,
    plain_columns,
    rename_columns,
    unboxed,
)
from popstats.words import html_of, sentences

#: Columns that tell recipes apart where the table has no recipe_id: same widths (or costs), retrained the same way.
RECIPE_SETTINGS = (
    "retraining", "epochs", "learning_rate", "batch_size", "weight_decay", "augmentation", "criterion",
)  # fmt: skip


@dataclass(frozen=True)
class Original:
    """The trained network that is pruned.

    Parameters
    ----------
    macs : int
        Multiply-accumulates of convolutions and linear layers for one input, in the unit of the table.
    params : int
        Number of parameters, in the unit of the table.
    accuracy : float
        Test accuracy in percent. Its own noise is common to every accuracy drop of the population.

    Raises
    ------
    PopulationError
        If a number is missing or illegal; accuracies of 1 and less are taken for fractions.

    Examples
    --------
    >>> Original(macs=125_747_840, params=855_770, accuracy=93.4)
    Original(macs=125747840, params=855770, accuracy=93.4)
    """

    macs: float
    params: float
    accuracy: float

    def __post_init__(self) -> None:
        for name in ("macs", "params", "accuracy"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool):
                raise PopulationError(f"original: expected a number for {name}, got {value!r}")
        if not (0 < self.macs < np.inf and 0 < self.params < np.inf):
            raise PopulationError(
                f"original: expected positive macs and params, got macs={self.macs:,.10g}, params={self.params:,.10g}"
            )
        if not 0.0 <= self.accuracy <= 100.0:
            raise PopulationError(f"original: expected an accuracy of 0 to 100 %, got {self.accuracy:.10g}")
        if self.accuracy <= 1.0:
            raise PopulationError(
                f"original: accuracy {self.accuracy:.10g} looks like a fraction; popstats reads percent: multiply it by 100"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Population:
    """Subnetworks of one original network, checked and ready to fit.

    Make one with `load_population` or `Population.from_frame`.

    Attributes
    ----------
    name : str
        Name of the population.
    original : Original
        The network they were pruned from.
    table : pandas.DataFrame
        The rows whose training finished, in popstats's columns; extra columns of a foreign table are kept.
    failed : pandas.DataFrame
        The rows whose training failed, with their reasons.
    metadata : dict
        Plan, original and provenance from the file's footer; empty for a foreign table.
    width_columns : tuple of str
        Columns that hold the widths, one per group, where the table has no column `widths`.
    remarks : tuple of Finding
        What was noticed on reading, beside what `findings` sees in the table.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.5, 0.8], n=50, seeds=2)
    >>> len(population), population.has_replicates, population.original.accuracy
    (200, True, 93.0)
    >>> population.frame.groupby("regime").size().to_dict()
    {'0.50': 100, '0.80': 100}
    """

    name: str
    original: Original
    table: pd.DataFrame
    failed: pd.DataFrame
    metadata: dict[str, Any] = field(default_factory=dict)
    width_columns: tuple[str, ...] = ()
    remarks: tuple[Finding, ...] = ()
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        original: Original | None = None,
        columns: Mapping[str, str] | None = None,
        widths: Sequence[str] = (),
        only: Mapping[str, Any] | None = None,
        accuracy_kind: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: str = "the frame",
    ) -> Population:
        """Make a population from a table of subnetworks.

        Parameters
        ----------
        frame : pandas.DataFrame
            One row per training (replicates are rows that share a recipe). Not modified.
        original : Original, optional
            The original network's three numbers; needed unless the table has the columns
            original_macs, original_params and original_accuracy.
        columns : mapping of str to str, optional
            popstats's column name -> the table's own, e.g. ``{"macs": "flops", "recipe_id": "arch"}``. Without recipe_id
            and widths, rows of equal MACs and parameters are trainings of one recipe.
        widths : sequence of str, optional
            Columns that hold the width (channels kept, or a number proportional to it; 0: the block is skipped), one
            per group. Rows with equal widths are replicates unless a recipe_id says otherwise.
        only : mapping of str to object, optional
            Column -> value: the rows to read, as `where` selects them; the others are not even checked.
        accuracy_kind : {"last", "best_test", "last_val", "best_val", "unknown"}, optional
            Which accuracy the table holds: of the last epoch, or the best over epochs, on test or on validation images;
            the report repeats it. Default "unknown".
        name : str, optional
            Name of the population.
        metadata : mapping, optional
            What is to be kept with it: plan, provenance.
        where : str
            What messages call the table.

        Returns
        -------
        Population

        Raises
        ------
        PopulationError
            If a needed column is absent, a value is illegal, or the table holds two populations.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"flops": [50, 60], "params": [40, 30], "accuracy": [90.0, 91.0]})
        >>> original = Original(macs=100, params=100, accuracy=92.0)
        >>> population = Population.from_frame(frame, original=original, columns={"macs": "flops"})
        >>> population.frame["accuracy_drop"].tolist()
        [2.0, 1.0]
        """
        if not isinstance(frame, pd.DataFrame):
            raise PopulationError(
                f"expected a pandas DataFrame, got {type(frame).__name__}; popstats.load_population reads files"
            )
        if original is not None and not isinstance(original, Original):
            raise PopulationError(
                "original: expected popstats.Original(macs=..., params=..., accuracy=...), got a "
                f"{type(original).__name__}{'; popstats.Original(**it) makes one' * isinstance(original, dict)}"
            )
        check_accuracy_kind(accuracy_kind)
        own = plain_columns(frame, (columns or {}).values())
        # A copy has its many columns side by side, so that pandas does not warn of adding a few.
        table = lists_from_text(unboxed(rename_columns(own, columns or {}, where)), where).copy()
        if original is not None:
            given = {f"original_{name}": float(value) for name, value in vars(original).items()}
            table = table.assign(**given)
        if accuracy_kind is not None or "accuracy_kind" not in table:
            table = table.assign(accuracy_kind=accuracy_kind or "unknown")
        derived = {name: value for name, value in (only or {}).items() if name not in table}
        table = table[chosen(table, {k: v for k, v in (only or {}).items() if k in table}, where)]
        check_table(table, where, own.columns)
        check_widths(table, widths, where, own.columns)
        failed = failed_rows(table)
        done = table[~failed].reset_index(drop=True)
        if done.empty:
            raise PopulationError(
                f"no training of this population finished: all {len(table)} rows have status 'failed'"
            )
        done = done.assign(**{name: _plain_numbers(done[name]) for name in REQUIRED})
        named = done["population"].dropna().tolist() if "population" in done else []
        blanks = tuple(repr(name) for name in frame.columns if name not in own.columns)
        population = cls(
            name=name or str([*named, "population"][0]),
            original=Original(*(done[f"original_{f.name}"].iloc[0].item() for f in fields(Original))),
            table=done,
            failed=table[failed].reset_index(drop=True),
            metadata=dict(metadata or {}),
            width_columns=tuple(widths),
            remarks=(Finding("blanks removed", (), {"names": blanks}),) if blanks else (),
        )
        check_recipes(done, population.recipe, where)
        check_direction(done, population.widths, where)
        return population.where(**derived) if derived else population

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about the table, in sentences; `check` and the report repeat them."""
        return sentences(self.findings)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What a reader should know about the table, as typed facts."""
        told_apart = self.width_columns or {"recipe_id", "widths"} & set(self.table)
        equal = 0 if told_apart else len(self) - int(self.recipe.max(initial=-1)) - 1
        return (*self.remarks, *notes_of(self.table, self.techniques, self.metadata, equal))

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table with what follows from it.

        Added columns: `macs_reduction`, `params_reduction` (fractions), `mcb`, `log_mcb` (exact parameters),
        `parameter_bucket` (parameters), `accuracy_drop` (percentage points; negative is better than the
        original) and `regime` (label of the regime on the population's own axis).
        """
        table, whole = self.table, self.original
        mcb = spaces.mean_computation_budget(table["macs"], table["params"], whole.macs, whole.params)
        extended = table.assign(
            macs_reduction=spaces.reduction(table["macs"], whole.macs),
            params_reduction=spaces.reduction(table["params"], whole.params),
            mcb=mcb,
            log_mcb=np.log(mcb),
            parameter_bucket=spaces.parameter_bucket(table["params"], whole.params),
            accuracy_drop=whole.accuracy - table["accuracy"],
        )
        regimes = spaces.assign_regimes(extended, self.regime_axis)
        labels = np.array([*regimes.labels, None], dtype=object)
        return extended.assign(regime=labels[regimes.index])

    def derived[T](self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` makes of this population: once per key, then the same object, its arrays read-only."""
        if key not in self._derived:
            self._derived[key] = _read_only(compute())
        return cast(T, self._derived[key])

    @cached_property
    def regime_axis(self) -> spaces.Axis:
        """The axis its plan fixed; "macs" for foreign tables and for plans that fixed both."""
        axes = set(self.table["regime_axis"].dropna().unique()) if "regime_axis" in self.table else set()
        return "params" if axes == {"params"} else "macs"

    @cached_property
    def recipe(self) -> npt.NDArray[np.int64]:
        """Recipe number of each row, shape (n,): rows that share it are replicates with different seeds."""
        codes = self.table.groupby(self._recipe_keys(), sort=False, dropna=False).ngroup()
        return _read_only(np.array(codes, dtype=np.int64))

    def _recipe_keys(self) -> list[Any]:
        if "recipe_id" in self.table and self.table["recipe_id"].notna().all():
            return ["recipe_id", "retraining"] if len(self.techniques) > 1 else ["recipe_id"]
        settings = [name for name in RECIPE_SETTINGS if name in self.table]
        if self.width_columns:
            return [*self.width_columns, *settings]
        if "widths" in self.table:
            return [self.table["widths"].map(tuple, na_action="ignore"), *settings]
        # One network trained twice looks like this. Different networks of the same costs share a place on the curve, and
        # what they have in common there is no evidence about the curve either.
        return ["macs", "params", *settings]

    @cached_property
    def techniques(self) -> tuple[str, ...]:
        """Retraining techniques in the table, ascending; "" stands for rows that do not say, last."""
        told = self.table["retraining"] if "retraining" in self.table else pd.Series([None])
        return (*sorted(map(str, told.dropna().unique())), *([""] if told.isna().any() else []))

    @cached_property
    def technique(self) -> npt.NDArray[np.int64]:
        """Position of each row's retraining technique in `techniques`, shape (n,)."""
        if len(self.techniques) == 1:
            return _read_only(np.zeros(len(self.table), dtype=np.int64))
        told = self.table["retraining"].fillna("").astype(str)
        return _read_only(pd.Categorical(told, self.techniques).codes.astype(np.int64))

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Names of the dependency groups, in the order of the columns of `widths`; empty without widths."""
        if self.width_columns:
            return self.width_columns
        if self.widths is None:
            return ()
        names = self.table["group_names"].iloc[0] if "group_names" in self.table else None
        if isinstance(names, list | tuple | np.ndarray) and len(names) == self.widths.shape[1]:
            return tuple(map(str, names))
        return tuple(f"group {g + 1}" for g in range(self.widths.shape[1]))

    @cached_property
    def widths(self) -> npt.NDArray[np.float64] | None:
        """Channels kept, shape (n, groups); None where the table has no widths."""
        if self.width_columns:
            return _read_only(self.table[list(self.width_columns)].to_numpy(dtype=np.float64))
        if "widths" not in self.table or self.table["widths"].isna().any():
            return None
        return _read_only(np.array(self.table["widths"].tolist(), dtype=np.float64))

    @property
    def width_unit(self) -> str:
        """What widths count: "channels", or "weights" where weights were pruned."""
        kinds = set(self.table["pruning"].dropna()) if "pruning" in self.table else set()
        return "weights" if kinds - {"filters"} else "channels"

    @property
    def has_replicates(self) -> bool:
        """Whether any recipe was trained with more than one seed."""
        return bool(np.bincount(self.recipe).max() > 1)

    def where(self, **conditions: Any) -> Population:
        """Return the subnetworks whose columns equal the given values.

        Parameters
        ----------
        **conditions
            Column of `frame` -> value; all must hold.

        Raises
        ------
        PopulationError
            If there is no such column, or no such subnetwork.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"macs": [5, 6], "params": [4, 3], "accuracy": [90.0, 91.0], "seed": [0, 1]})
        >>> population = Population.from_frame(frame, original=Original(macs=9, params=9, accuracy=92.0))
        >>> len(population.where(seed=1))
        1
        """
        return self.select(chosen(self.frame, conditions, self.name))

    def select(self, keep: npt.NDArray[Any]) -> Population:
        """Return the subnetworks picked by a boolean mask or by row numbers, shape (n,) or (m,).

        Raises
        ------
        PopulationError
            If none is left.
        """
        rows = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        if rows.size == 0:
            raise PopulationError(f"{self.name}: no subnetwork is left after this selection of {len(self)}")
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True))

    def in_regimes(self, assigned: spaces.Regimes) -> Population:
        """Return the population with these regimes written down like a plan's: any selection of it keeps them."""
        # Rows in no regime are written down as planned on the other axis, where they belong to none on this one.
        axes = np.array([assigned.axis, "params" if assigned.axis == "macs" else "macs"], dtype=object)
        columns = {"regime_axis": axes[(assigned.index < 0).astype(int)]}
        columns["regime_target"] = assigned.targets[assigned.index]
        return replace(self, table=self.table.assign(**columns))

    def save(self, path: str | Path) -> Path:
        """Write the population as Parquet, columns of mixed types as text, metadata in the footer; returns the path."""
        whole = pd.concat([self.table, self.failed], ignore_index=True) if len(self.failed) else self.table
        arrow = pa.table({str(name): _arrow_array(whole[name]) for name in whole.columns})
        metadata = {**self.metadata, "population": self.name, "width_columns": self.width_columns}
        with written_whole(Path(path)) as unfinished:
            pq.write_table(arrow.replace_schema_metadata(footer(metadata)), unfinished, compression="zstd")
        return Path(path)

    def __repr__(self) -> str:
        reductions, run = self.frame["macs_reduction"], self.metadata.get("run")
        unfinished = f" ({run['finished']:,} of {run['planned']:,} are finished)" if run else ""
        return (
            f"<Population {self.name!r}: {len(self):,} trainings of {self.recipe.max() + 1:,} recipes{unfinished}"
            f"{f', {len(self.failed)} failed' if len(self.failed) else ''}; MACs reduction "
            f"{100 * reductions.min():.0f} to {100 * reductions.max():.0f} %; original {self.original.accuracy:.2f} %, "
            f"{self.original.macs:,.15g} MACs, {self.original.params:,.15g} parameters>"
        )

    def _repr_html_(self) -> str:
        shown = {"MACs reduction": "macs_reduction", "mCB": "mcb", "accuracy drop (points)": "accuracy_drop"}
        columns = {"n": ("mcb", "size"), **{name: (own, "median") for name, own in shown.items()}}
        table = self.frame.groupby("regime").agg(**columns)
        return html_of(repr(self)[1:-1], table.reset_index())


def _read_only[T](value: T) -> T:
    """Make every array in a value read-only, in place, and return the value: it is shared by all who ask for it."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, tuple | list):
        for item in value:
            _read_only(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            _read_only(getattr(value, part.name))
    return value


def folder_for(path: Path) -> Path:
    """Return the folder of a file to be written, made if only it is missing."""
    folder = path.absolute().parent
    if not folder.is_dir() and (folder.parent == Path(folder.anchor) or not folder.parent.is_dir()):
        raise PopstatsError(
            f"{path}: expected a folder to write to, got {path.parent}, which does not exist, and only one folder is made, "
            "inside an existing one other than the root. Make it, or write elsewhere"
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    return folder


def _not_written(path: Path, error: OSError) -> PopstatsError:
    return PopstatsError(f"{path}: cannot be written ({error.strerror or error}); write elsewhere")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file that is at `path` whole or not at all; errors name `path`."""
    folder_for(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")  # Others may write the same file.
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _arrow_array(values: pd.Series) -> pa.Array:
    """Return a column for a file, as text where its values have no common type."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in values]
        texts = [None if gone else str(value) for value, gone in zip(values, missing, strict=True)]
        return pa.array(texts, pa.string())


def require_population(value: object) -> None:
    """Raise PopulationError unless `value` is a Population, saying how to make one from what it is."""
    if isinstance(value, Population):
        return
    remedy = "make one with popstats.load_population(...)"
    if isinstance(value, str | Path):
        remedy = f"load it first: popstats.fit(popstats.load_population({str(value)!r}))"
    elif isinstance(value, pd.DataFrame):
        remedy = "make one of it first: popstats.fit(popstats.Population.from_frame(frame, original=popstats.Original(...)))"
    raise PopulationError(f"fit: expected a Population, got a {type(value).__name__}; {remedy}")


def _plain_numbers(values: pd.Series) -> npt.NDArray[Any]:
    """Return a required column as plain int64 where every value is whole and fits, else as float64."""
    numbers = values.to_numpy(dtype=np.float64)
    whole = column(str(values.name)).type == pa.int64() and (numbers == np.rint(numbers)).all()
    if not whole or numbers.max() >= 2.0**63:
        return numbers
    return values.to_numpy(dtype=np.int64)
