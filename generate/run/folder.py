"""The run folder: what a population has so far, safe against interruption at any moment.

plan.toml  the plan as given                  plan.json           the plan resolved
original/  weights and numbers                worklist.json       every training, with its place in the plan
rows/      one file per finished training     weights/            trained weights, where the plan keeps them
claims     byte-range locks                   population.parquet  the rows, compacted

A row is written to a temporary name, flushed to the disk and renamed, so it is there whole or not at all. A
training is claimed by a lock on one byte of `claims` that the system releases when its process ends, however
it ends: there are no stale claims.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from generate.plan import Plan, only_adds, plan_from_dict, toml_of
from generate.recipes.worklist import Training
from generate.train.device import code_version, hardware
from popstats.errors import RunFolderError
from popstats.population import columns

POPULATION = "population.parquet"
# Byte i + 1 of the lock file belongs to training i, byte 0 to the preparation of the folder.
PREPARATION = -1
LEFTOVER_SECONDS = 3600.0
# Rough size of one row file and of its share of the table (bytes), to tell a full disk before the first training.
ROW_BYTES = 8192
ROW_REMEDY = "Delete it and rerun the command: only that network is retrained"
# What each of the folder's JSON files must hold.
PARTS = {
    "plan.json": ("name", "recipes"),
    "original/numbers.json": ("original_id", "accuracy", "macs", "params"),
    "original/costs.json": ("groups", "steps", "macs", "params"),
    "worklist.json": ("recipes", "trainings"),
    "baselines.json": ("torch-pruning", "uniform"),
    "pilot.json": ("widths", "outcomes"),
}


def explain(error: OSError, path: Path) -> RunFolderError:
    """Turn a refusal of the file system into a sentence."""
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space and rerun the command to resume",
        errno.EDQUOT: "the disk quota is used up. Free some space and rerun the command to resume",
        errno.EROFS: "the file system is read-only. Choose another folder with --out",
        errno.EACCES: "permission to write is missing. Change its permissions or choose another folder with --out",
        errno.EPERM: "permission to write is missing. Change its permissions or choose another folder with --out",
        errno.EFBIG: "the file size limit is reached. Raise the limit (ulimit -f) or choose another folder with --out",
        errno.ENOENT: "it does not exist (any more) or cannot be created. Was the run folder deleted",
    }
    end = "?" if error.errno == errno.ENOENT else "."
    return RunFolderError(f"{path}: {reasons.get(error.errno or 0, str(error))}{end}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    # Process ids repeat: on another machine that shares the folder, and in another container.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the rename durable
        finally:
            os.close(folder)
    except OSError as error:
        # What was written of it takes room on a disk that may have none; where even this fails, the first reason counts.
        with suppress(OSError):
            temporary.unlink()
        raise explain(error, path) from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a population."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(path, sink.getvalue().to_pybytes())


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one population in the making."""

    path: Path  # The folder; `create` makes it.

    @property
    def weights_path(self) -> Path:
        """The original network's weights."""
        return self.path / "original" / "weights.safetensors"

    @property
    def population_path(self) -> Path:
        """The compacted table."""
        return self.path / POPULATION

    def trained_weights(self, subnetwork_id: str) -> Path:
        """Where the weights of one trained subnetwork lie, if they are kept."""
        return self.path / "weights" / f"{subnetwork_id}.safetensors"

    def create(self) -> None:
        """Make the folder and its parts, and check that they can be written to."""
        try:
            for part in ("original", "rows", "weights"):
                (self.path / part).mkdir(parents=True, exist_ok=True)
            (self.path / "claims").touch()
        except (FileExistsError, NotADirectoryError) as error:
            place = Path(error.filename)
            file = next((one for one in (place, *place.parents) if one.exists() and not one.is_dir()), place)
            raise RunFolderError(
                f"{self.path}: expected a folder, but {file} is a file. Choose another --out."
            ) from error
        except OSError as error:
            raise explain(error, self.path) from error
        probe = self.path / "rows" / f".probe.{secrets.token_hex(8)}"
        write_whole(probe, b"")
        probe.unlink()

    def check_space(self, trainings: int, weights_bytes: int) -> None:
        """Refuse a folder whose disk has no room for the rows (and kept weights) that are still to come."""
        needed = trainings * (ROW_BYTES + weights_bytes)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise RunFolderError(
                f"{self.path}: {free / 1e6:,.0f} MB are free, but about {needed / 1e6:,.0f} MB are needed. "
                'Free some space, choose another --out, or set keep_weights = "none".'
            )

    def read_plan(self) -> Plan | None:
        """Return the plan that the folder was made with, or None for a new folder."""
        content = self.read_part("plan.json")
        return None if content is None else plan_from_dict(content, where=str(self.path / "plan.json"))

    def adopt_plan(self, plan: Plan) -> None:
        """Make `plan` the folder's."""
        present = self.read_plan()
        if present == plan:
            return
        self.check_plan(plan)
        if present is not None and self._is_untouched():
            # Nothing but the original network can be there, and it may be that plan's.
            (self.path / "original" / "numbers.json").unlink(missing_ok=True)
        write_whole(self.path / "plan.toml", toml_of(plan.as_dict()).encode())
        self.write_part("plan.json", plan.as_dict())

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that does more than to add recipes to those that trainings were drawn for."""
        present = self.read_plan()
        if present is not None and not self._is_untouched() and not only_adds(present, plan):
            old, new = present.as_dict(), plan.as_dict()
            differing = ", ".join(key for key in old if old[key] != new[key])
            raise RunFolderError(
                f"{self.path} was made with a different plan ({differing}). A plan may "
                "only grow on an existing folder: more recipes, regimes, seeds or techniques. Choose a new --out, or go "
                "back to the folder's plan.toml."
            )

    def _is_untouched(self) -> bool:
        """Whether no training was drawn yet: what stopped the first attempt was often the plan itself."""
        rows = self.finished() if (self.path / "rows").exists() else ()
        return not (self.path / "worklist.json").exists() and not rows

    def read_original(self) -> dict[str, Any] | None:
        """Return the original network's numbers, or None while it is not there."""
        return self.read_part("original/numbers.json") if self.weights_path.exists() else None

    def write_original(self, weights: bytes, numbers: Mapping[str, Any]) -> None:
        """Store the original network; its numbers come last, so that they are there only with its weights."""
        write_whole(self.weights_path, weights)
        self.write_part("original/numbers.json", numbers)

    def read_worklist(self) -> tuple[Training, ...]:
        """Return the trainings in plan order; empty for a new folder."""
        content = self.read_part("worklist.json") or {"trainings": []}
        return tuple(Training.from_dict(values) for values in content["trainings"])

    def worklist_stamp(self) -> int:
        """Return what changes with the worklist; 0 where there is none."""
        path = self.path / "worklist.json"
        return path.stat().st_mtime_ns if path.exists() else 0

    def has_worklist_of(self, plan: Plan) -> bool:
        """Whether the stored worklist was drawn for the plan's recipes; a kill may have come between the two."""
        content = self.read_part("worklist.json") or {}
        return bool(content.get("recipes") == plan.as_dict()["recipes"])

    def write_worklist(self, plan: Plan, trainings: Sequence[Training]) -> None:
        """Store the trainings, with what they were drawn for."""
        content = {"recipes": plan.as_dict()["recipes"], "trainings": [t.as_dict() for t in trainings]}
        self.write_part("worklist.json", content)

    def write_part(self, name: str, content: Mapping[str, Any]) -> None:
        """Store one of the folder's JSON files."""
        write_whole(self.path / name, _json_bytes(content))

    def read_part(self, name: str) -> dict[str, Any] | None:
        """Return one of the folder's JSON files, or None where it is not there yet."""
        path = self.path / name
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read ({error.strerror}).") from error
        return _parsed(path, content, PARTS[name])

    def _row_path(self, index: int) -> Path:
        return self.path / "rows" / f"{index:07d}.json"

    def is_finished(self, index: int) -> bool:
        """Whether the training at `index` has its row."""
        return self._row_path(index).exists()

    def finished(self) -> set[int]:
        """Return the indices of all finished trainings, failed ones included."""
        try:
            names = os.listdir(self.path / "rows")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunFolderError(
                f"{self.path} is not a run folder: expected one made by `python -m generate.population`, with a plan "
                "and rows/."
            ) from error
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be read ({error.strerror}).") from error
        stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write_row(self, index: int, row: Mapping[str, Any]) -> None:
        """Store the row of one finished training."""
        write_whole(self._row_path(index), _json_bytes(row))

    def read_rows(self) -> list[dict[str, Any]]:
        """Return the finished rows in plan order."""
        return [self.read_row(index) for index in sorted(self.finished())]

    def read_row(self, index: int) -> dict[str, Any]:
        """Return one finished row."""
        path = self._row_path(index)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read ({error.strerror}).") from error
        return _parsed(path, content, ("subnetwork_id", "status"), ROW_REMEDY)

    def drop_beaten_weights(self) -> None:
        """Keep the trained weights of each regime's and technique's best subnetwork only."""
        best: set[tuple[str, float, str]] = set()
        rows = [row for row in self.read_rows() if row["status"] == "done"]
        # Weights without a row belong to a training whose row is about to be written.
        for row in sorted(rows, key=lambda row: -float(row["accuracy"])):
            place = (row["regime_axis"], row["regime_target"], row["retraining"])
            if place in best:
                self.trained_weights(row["subnetwork_id"]).unlink(missing_ok=True)
            best.add(place)

    def prepared(self) -> tuple[Plan, dict[str, Any]]:
        """Return the plan and the original network's numbers."""
        plan, original = self.read_plan(), self.read_original()
        if plan is None or original is None:
            raise RunFolderError(
                f"{self.path} is not a run folder with an original network. Expected a folder that "
                "`python -m generate.population --out FOLDER` made."
            )
        return plan, original

    def table(self) -> pa.Table:
        """Return all rows finished so far, in plan order, with plan, original network and costs in the footer."""
        plan, original = self.prepared()
        provenance = {
            "code_version": code_version(),
            "torch_version": str(torch.__version__),
            "hardware": hardware(),
        }
        footer = {
            "population": plan.name,
            "plan": plan.as_dict(),
            "original": original,
            "provenance": provenance,
        }
        if costs := self.read_part("original/costs.json"):
            footer["costs"] = costs
        return pa.Table.from_pylist(self.read_rows(), schema=columns.schema(footer))

    def compact(self) -> None:
        """Write all finished rows as population.parquet, in plan order."""
        write_table(self.population_path, self.table())

    def sweep(self) -> None:
        """Remove temporary files of processes that were killed while writing; young ones may be in use."""
        for leftover in self.path.glob("**/.*.tmp"):
            # It may be gone by now: whoever wrote it has renamed it.
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                    leftover.unlink()


class Claims:
    """Locks of one process on the trainings of a run folder; one per process, which loses all when it closes any."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / "claims"
        try:
            self._file = open(self._path, "r+b")  # noqa: SIM115 - held for the life of the process
        except OSError as error:
            raise explain(error, self._path) from error

    def close(self) -> None:
        """Release everything."""
        self._file.close()

    @contextmanager
    def claim(self, index: int) -> Iterator[bool]:
        """Try to claim the training at `index`; yields whether it is ours."""
        if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, index):
            yield False
            return
        try:
            yield True
        finally:
            self._lock(fcntl.LOCK_UN, index)

    @contextmanager
    def preparation(self, on_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait until no other process prepares or compacts the folder, and keep others from doing so."""
        if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, PREPARATION):
            on_waiting()
            self._lock(fcntl.LOCK_EX, PREPARATION)
        try:
            yield
        finally:
            self._lock(fcntl.LOCK_UN, PREPARATION)

    def _lock(self, how: int, index: int) -> bool:
        return _locked(self._file, self._path, how, index)


def _locked(file: BinaryIO, path: Path, how: int, index: int) -> bool:
    """Lock or unlock a training's byte; return whether that was possible without waiting, where `how` says not to wait."""
    try:
        fcntl.lockf(file, how, 1, index + 1)
    except BlockingIOError:
        return False
    except OSError as error:
        # Network disks know no locks if they are mounted so.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise explain(error, path) from error
        raise RunFolderError(
            f"{path}: its file system has no file locks ({error.strerror}), which keep two processes from training the "
            "same network. Enable them (NFS 4, Lustre with `flock`), or choose a local folder with --out."
        ) from error
    return True


def claimed(folder: RunFolder, indices: Sequence[int]) -> list[int]:
    """Return those of `indices` (PREPARATION is one) that some other process holds now. Writes nothing."""
    path, held = folder.path / "claims", []
    try:
        with open(path, "rb") as file:
            for index in indices:
                if _locked(file, path, fcntl.LOCK_SH | fcntl.LOCK_NB, index):
                    _locked(file, path, fcntl.LOCK_UN, index)
                else:
                    held.append(index)
    except FileNotFoundError:
        return []  # the folder was being made when its maker was stopped
    except OSError as error:
        raise explain(error, path) from error
    return held


def _parsed(
    path: Path,
    content: bytes,
    needed: Sequence[str],
    remedy: str = "Restore it, or start a new folder with --out",
) -> dict[str, Any]:
    """Return what one of the folder's JSON files holds."""
    try:
        found = json.loads(content)
        if lacking := [key for key in needed if not isinstance(found, dict) or key not in found]:
            raise ValueError(f"{lacking[0]!r} is missing")
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}). {remedy}.") from error
    return dict(found)


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    # NaN is no JSON: a row that held one could not be read elsewhere.
    return json.dumps(content, allow_nan=False).encode()
