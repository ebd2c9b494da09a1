"""Each public name resolves, says what it is, and is used in a test."""

import ast
import inspect
from pathlib import Path

import pytest
from numpydoc.validate import validate

import popstats

#: Of numpydoc's checks: no docstring, arguments missing, unknown or in another order, summary not imperative.
SERIOUS = {"GL08", "PR01", "PR02", "PR03", "SS05"}
TESTS = [path for path in Path(__file__).parent.rglob("test_*.py") if path != Path(__file__)]


@pytest.mark.parametrize("name", popstats.__all__)
def test_name_resolves_and_is_documented(name):
    thing = getattr(popstats, name)
    assert inspect.isclass(thing) or callable(thing)
    assert thing.__name__ == name
    assert len(inspect.getdoc(thing)) > 20


@pytest.mark.parametrize("name", [n for n in popstats.__all__ if n.islower()])
def test_functions_document_each_argument_and_annotate_the_result(name):
    function = getattr(popstats, name)
    found = validate(f"{function.__module__}.{name}")["errors"]
    assert [text for code, text in found if code in SERIOUS] == []
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", popstats.__all__)
def test_each_name_has_an_example_that_runs(name):
    """tests/test_doctests.py runs them; the errors share that of their base."""
    thing = getattr(popstats, name)
    shown = popstats.PopstatsError if name.endswith("Error") else thing
    assert ">>> " in inspect.getdoc(shown)


def names_used(path):
    """Return the names that a test file takes from popstats, as attributes or by import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "popstats":
            yield from (alias.name for alias in node.names)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "popstats"
        ):
            yield node.attr


def test_every_name_is_used_in_a_test():
    used = {name for path in TESTS for name in names_used(path)}
    assert set(popstats.__all__) - used == set()


def test_names_are_listed_once_and_in_dir():
    assert len(set(popstats.__all__)) == len(popstats.__all__)
    assert set(popstats.__all__) <= set(dir(popstats))


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(AttributeError, match="write_report"):
        popstats.fitt  # noqa: B018


def test_errors_have_one_base():
    errors = [getattr(popstats, name) for name in popstats.__all__ if name.endswith("Error")]
    assert all(issubclass(error, popstats.PopstatsError) for error in errors)
