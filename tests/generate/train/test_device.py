"""Versions of rows, wherever the code runs from."""

import importlib.metadata

import pytest

from generate.train.device import code_version
from popstats import __version__


@pytest.fixture(autouse=True)
def _asked_anew():
    code_version.cache_clear()
    yield
    code_version.cache_clear()


def test_a_folder_that_was_copied_and_never_installed_has_a_version(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert code_version().partition("+")[0] == __version__


def test_without_git_the_version_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert code_version() == __version__
