"""How far a run is: whoever asks, whatever state the folder is in."""

import shutil
from pathlib import Path

import pytest

from generate.population import main
from generate.run.folder import RunFolder
from generate.run.progress import RunProgress, print_status
from popstats.errors import BAD_INPUT, RunFolderError
from tests.generate.conftest import another_process_holds


@pytest.fixture
def half_done(tmp_path, tiny_run) -> Path:
    """The tiny run as it was after eight of its twelve trainings, each of two seconds."""
    path = tmp_path / "run"
    shutil.copytree(tiny_run, path)
    folder = RunFolder(path)
    for index in range(8):
        folder.write_row(index, folder.read_row(index) | {"seconds": 2.0})
    for index in range(8, 12):
        (path / "rows" / f"{index:07d}.json").unlink()
    return path


def test_where_nobody_runs_it_says_how_long_the_rest_takes(half_done, capsys):
    # Two seconds each, and at the end half a training with one of two idle half of the time.
    assert RunProgress(RunFolder(half_done)).remaining_with(2, ()) == pytest.approx(4.5, abs=0.3)
    assert main(["--out", str(half_done), "--status", "--workers", "1"]) == 0
    assert "About 8 s left" in (said := capsys.readouterr().out)
    assert "(with 1 worker; no worker is active)" in said


def test_the_newest_rows_tell_the_speed(half_done, monkeypatch):
    """Two of the last trainings took four times as long: the machine is busier now, or another one."""
    monkeypatch.setattr("generate.run.progress.NEWEST_ROWS", 2)
    folder = RunFolder(half_done)
    before = RunProgress(folder).remaining_with(1, ())
    for index in (6, 7):
        folder.write_row(index, folder.read_row(index) | {"seconds": 8.0, "started_at": "9999"})
    assert RunProgress(folder).remaining_with(1, ()) > 3 * before


def test_running_trainings_are_the_workers_and_half_done(half_done, capsys):
    with another_process_holds(half_done, "8,9,11"):
        # 4 x 2 s, half of three of them gone: 5 s for three, and a third of a second of each waiting for the last.
        left = RunProgress(RunFolder(half_done)).remaining_with(3, (8, 9, 11))
        assert left == pytest.approx(5 / 3 + 2 / 3, abs=0.2)
        assert print_status(half_done, 1) == 0
    said = capsys.readouterr().out
    assert "8 of 12 trainings done, 0 failed, 3 running, 4 left" in said
    assert "(3 at a time)" in said


def test_a_folder_that_is_being_prepared_says_so(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with another_process_holds(folder.path, "-1"):
        assert print_status(folder.path, 1) == 0
        assert "It is being prepared" in capsys.readouterr().out
    assert print_status(folder.path, 1) == 0
    assert "Its preparation was not finished" in capsys.readouterr().out


def test_a_folder_whose_making_was_stopped_is_no_traceback(tmp_path, capsys):
    """Stopped between its rows/ and its claims."""
    (tmp_path / "run" / "rows").mkdir(parents=True)
    assert print_status(tmp_path / "run", 1) == 0
    assert "0 of 0 trainings" in capsys.readouterr().out


def test_before_the_first_row_nothing_is_known(half_done, capsys):
    for path in (half_done / "rows").glob("*.json"):
        path.unlink()
    assert print_status(half_done, 2) == 0
    assert "--dry-run gives one" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b"", b'{"macs": 1', bytes(100), b"\xff\xfe"])
def test_damaged_rows_are_named_and_the_rest_is_counted(half_done, content, capsys):
    (half_done / "rows" / "0000003.json").write_bytes(content)
    assert print_status(half_done, 1) == BAD_INPUT
    said = capsys.readouterr()
    assert "7 of 12 trainings done, 0 failed, 0 running, 5 left" in said.out
    assert "0000003.json is damaged" in said.err
    assert "Delete it and rerun the command" in said.err


@pytest.mark.parametrize("name", ["plan.json", "worklist.json", "original/numbers.json"])
@pytest.mark.parametrize("content", ["{}", "[]", "null", ""])
def test_damaged_parts_are_sentences(half_done, name, content):
    (half_done / name).write_text(content)
    folder = RunFolder(half_done)
    with pytest.raises(RunFolderError, match=f"{name} is damaged"):
        (folder.read_plan(), folder.read_worklist(), folder.read_original())


def test_a_place_that_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "file"):
        with pytest.raises(RunFolderError, match="is not a run folder"):
            print_status(path, 1)
