"""The run folder: whole files, claims, plans that may only grow, and refusals in sentences."""

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from generate.plan import plan_from_dict, read_plan
from generate.run.folder import Claims, RunFolder, claimed, explain, write_whole
from popstats.errors import RunFolderError
from popstats.population import columns
from tests.generate.conftest import another_process_holds, is_held

SMALL = {"name": "small", "recipes": [{"regimes": [0.5], "count": 3}]}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create()
    return made


def row(index: int, **changes):
    values = {
        "subnetwork_id": f"s{index}",
        "recipe_id": f"r{index}",
        "status": "done",
        "macs": 10 * index,
        "accuracy": 90.0,
    }
    return {**values, "regime_axis": "macs", "regime_target": 0.5, "retraining": "scratch", **changes}


def test_rows_come_back_in_plan_order_and_in_the_declared_schema(folder):
    for index in (2, 0, 1):
        folder.write_row(index, row(index))
    assert folder.finished() == {0, 1, 2}
    folder.adopt_plan(plan_from_dict(SMALL))
    folder.write_original(b"weights", {"original_id": "ab", "accuracy": 95.0, "macs": 100, "params": 10})
    folder.compact()
    table = pq.read_table(folder.population_path)
    assert table.schema.names == [column.name for column in columns.COLUMNS]
    assert table["macs"].to_pylist() == [0, 10, 20]
    assert columns.read_footer(table.schema)["population"] == "small"


def test_a_half_written_row_is_no_row(folder):
    (folder.path / "rows" / ".0000003.json.99.tmp").write_bytes(b'{"subnetw')
    assert folder.finished() == set()


def test_a_row_that_is_no_number_is_not_written(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_row(0, row(0, accuracy=float("nan")))
    assert folder.finished() == set()


def test_a_claim_holds_against_other_processes_and_dies_with_its_owner(folder):
    claims = Claims(folder)
    with another_process_holds(folder.path, "3"):
        with claims.claim(3) as mine:
            assert not mine
        with claims.claim(4) as mine:
            assert mine
        assert claimed(folder, [2, 3, 4]) == [3]
    with claims.claim(3) as mine:
        assert mine
        assert is_held(folder.path, 3)
        assert not is_held(folder.path, 4)
    claims.close()


def test_a_plan_may_grow_but_not_change(folder):
    plan = plan_from_dict(SMALL)
    folder.adopt_plan(plan)
    folder.adopt_plan(plan)
    assert folder.read_plan() == plan
    folder.write_worklist(plan, ())
    grown = plan_from_dict({**SMALL, "recipes": [{"regimes": [0.5, 0.7], "count": 3}]})
    folder.adopt_plan(grown)
    with pytest.raises(RunFolderError, match=r"a different plan \(.*network\).*may only grow"):
        folder.adopt_plan(plan_from_dict({**SMALL, "network": {"width": 0.5}}))
    assert folder.read_plan() == grown
    assert read_plan(folder.path / "plan.toml") == grown


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFolderError, match="expected a folder"):
        RunFolder(tmp_path / "taken").create()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission to write is missing"),
    ],
)
def test_refusals_of_the_file_system_are_sentences(tmp_path, number, words):
    assert words in str(explain(OSError(number, ""), tmp_path))


def test_a_full_disk_leaves_the_old_file_whole(folder, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    write_whole(folder.path / "kept.json", b"old")
    real_open = open
    monkeypatch.setattr("builtins.open", lambda path, *rest, **named: real_open("/dev/full", *rest, **named))
    with pytest.raises(RunFolderError, match="the disk is full"):
        write_whole(folder.path / "kept.json", b"new")
    monkeypatch.undo()
    assert (folder.path / "kept.json").read_bytes() == b"old"


def test_a_limit_of_the_system_leaves_the_old_file_whole(folder):
    """A real refusal in mid-file: the limit on the size of files lies above the old content and below the new."""
    path = folder.path / "kept.json"
    write_whole(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(
            RunFolderError, match=r"kept.json: the file size limit is reached. Raise the limit"
        ):
            write_whole(path, bytes(4096))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert not list(folder.path.glob(".*.tmp"))


NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Drop root's right to write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_read_only_place_is_refused_before_anything_is_made(open_folder):
    locked = open_folder / "locked"
    locked.mkdir(mode=0o555)
    with without_privileges(), pytest.raises(RunFolderError, match="run: permission to write is missing"):
        RunFolder(locked / "run").create()
    assert list(locked.iterdir()) == []


def test_a_read_only_run_is_read_and_not_written(open_folder):
    made = RunFolder(open_folder / "run")
    made.create()
    made.write_row(0, row(0))
    for path in (made.path, *made.path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with without_privileges():
        assert made.read_rows() == [row(0)]
        assert claimed(made, [0, 1]) == []
        with pytest.raises(RunFolderError, match="permission to write is missing"):
            made.write_row(1, row(1))
        with pytest.raises(RunFolderError, match="permission to write is missing"):
            made.create()


def test_another_users_folder_is_a_sentence(open_folder):
    made = RunFolder(open_folder / "run")
    made.create()
    made.path.chmod(0o700)
    with (
        without_privileges(),
        pytest.raises(RunFolderError, match=r"run cannot be read \(Permission denied\)"),
    ):
        made.finished()
    made.path.chmod(0o755)
    (made.path / "plan.json").write_text("{}")
    (made.path / "plan.json").chmod(0o600)
    (made.path / "claims").chmod(0o600)
    with without_privileges():
        with pytest.raises(RunFolderError, match=r"plan\.json cannot be read"):
            made.read_plan()
        with pytest.raises(RunFolderError, match="claims: permission to write is missing"):
            Claims(made)


def test_two_processes_with_one_id_may_write_the_same_file(folder, monkeypatch):
    """In two containers that share a folder, both are often process 1; both write the table when the last row is there."""
    path, real = folder.path / "population.parquet", os.fsync
    monkeypatch.setattr("os.getpid", lambda: 1)

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr("os.fsync", real)
        write_whole(path, b"theirs")
        real(descriptor)

    monkeypatch.setattr("os.fsync", meanwhile)
    write_whole(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert not list(folder.path.glob(".*.tmp"))


def test_sweeping_up_minds_nobody_who_is_still_writing(folder, monkeypatch):
    """A temporary file that is renamed between being listed and being looked at."""
    young, old = folder.path / "rows" / ".young.tmp", folder.path / "rows" / ".old.tmp"
    for path in (young, old):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    gone = folder.path / "rows" / ".gone.tmp"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([gone, young, old]))
    folder.sweep()
    assert young.exists()
    assert not old.exists()


def test_a_disk_without_locks_is_a_sentence(folder, monkeypatch):
    """What an NFS mount without a lock service answers."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    claims = Claims(folder)
    for attempt in (claims.preparation, lambda: claims.claim(0)):
        with pytest.raises(RunFolderError, match=r"no file locks .* Enable them"), attempt():
            pass
    with pytest.raises(RunFolderError, match="no file locks"):
        claimed(folder, [0])
    claims.close()


def test_too_small_a_disk_is_refused_beforehand(folder):
    with pytest.raises(RunFolderError, match="are free, but about"):
        folder.check_space(trainings=10**9, weights_bytes=10**9)


def test_damaged_files_are_sentences(folder):
    (folder.path / "worklist.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"worklist.json is damaged"):
        folder.read_worklist()


def test_a_damaged_row_is_a_sentence_and_other_files_beside_rows_are_none(folder):
    folder.write_row(3, row(3))
    (folder.path / "rows" / "0000003 (copy).json").write_text("{}")
    (folder.path / "rows" / ".0000004.json.77.tmp").write_text("{")
    assert folder.finished() == {3}
    (folder.path / "rows" / "0000003.json").write_text('{"macs": 1')
    with pytest.raises(RunFolderError, match=r"0000003.json is damaged .* Delete it and rerun the command"):
        folder.read_rows()


def test_only_the_best_weights_of_each_regime_stay(folder):
    for index, accuracy in enumerate((90.0, 92.0, 91.0)):
        folder.write_row(index, row(index, accuracy=accuracy))
        folder.trained_weights(f"s{index}").write_bytes(b"weights")
    folder.trained_weights("s9").write_bytes(b"weights of a training whose row is still to come")
    folder.drop_beaten_weights()
    assert sorted(path.stem for path in (folder.path / "weights").iterdir()) == ["s1", "s9"]


def test_a_plan_adopted_just_before_a_kill_still_gets_its_worklist(folder):
    plan = plan_from_dict(SMALL)
    folder.adopt_plan(plan)
    assert not folder.has_worklist_of(plan)
    folder.write_worklist(plan, ())
    assert folder.has_worklist_of(plan)
    assert not folder.has_worklist_of(plan_from_dict({**SMALL, "recipes": [{"regimes": [0.5], "count": 4}]}))


def test_a_plan_that_stopped_its_first_run_may_be_corrected(folder):
    """Nothing was trained: a wrong path of weights, or a learning rate too high, must not cost the folder."""
    wrong = plan_from_dict({**SMALL, "original": {"source": "typo.safetensors"}})
    folder.adopt_plan(wrong)
    right = plan_from_dict({**SMALL, "original": {"training": {"learning_rate": 0.01}}})
    folder.write_original(b"weights", {"original_id": "a", "accuracy": 1.0, "macs": 1, "params": 1})
    folder.adopt_plan(right)
    assert folder.read_plan() == right
    assert folder.read_original() is None, "the original was another plan's"
    folder.write_worklist(right, ())
    with pytest.raises(RunFolderError, match="a different plan"):
        folder.adopt_plan(wrong)
