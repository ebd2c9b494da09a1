"""Who may import whom: the table is the only thing between the packages, and no arrow runs back up."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Stations of popstats in the order of the data flow; a module may import from its own and earlier ones.
STATIONS = {
    "errors": 0,
    "columns": 1,
    "validation": 2,
    "spaces": 2,
    "population": 3,
    "truths": 4,
    "layer_chain": 4,
    "simulate": 5,
    "inference": 6,
    "judgement": 7,
    "report": 8,
    "options": 8,
    "__main__": 9,
}
HEAVY = {
    "numpy",
    "pandas",
    "scipy",
    "pyarrow",
    "pymc",
    "pytensor",
    "arviz",
    "nutpie",
    "numba",
    "altair",
    "torch",
}
STATISTICS = {"pymc", "pytensor", "arviz", "nutpie", "numba", "pandas", "statsmodels", "altair"}


def python_files(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path, *, top_level_only=False):
    """Return the dotted names that a module imports; functions and `if TYPE_CHECKING` included unless asked."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from popstats import columns` imports a module, `from popstats.columns import schema` a name of one.
            bare = node.module in ("popstats", "generate")
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if bare else {node.module}
    return names


def roots(names):
    return {name.split(".")[0] for name in names}


def station(dotted):
    return STATIONS[dotted.split(".")[1]]


def modules_after(statement):
    """Return the modules that a fresh interpreter holds after a statement, beyond those it starts with."""
    code = (
        "import sys, json; before = set(sys.modules); "
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "statement", ["import popstats", "import generate", "import popstats; dir(popstats)"]
)
def test_importing_a_package_takes_nothing_heavy(statement):
    modules = modules_after(statement)
    assert not roots(modules) & HEAVY
    # Milliseconds: the standard library's importlib and the package itself, not a tree of modules.
    assert len(modules) < 40


def test_population_tables_need_neither_torch_nor_pymc():
    modules = modules_after(
        "import popstats; popstats.Population, popstats.load_population, popstats.PlanError"
    )
    assert not roots(modules) & {"torch", "pymc", "pytensor", "nutpie", "numba", "arviz"}


def test_the_command_of_generate_takes_no_statistics():
    modules = modules_after("import generate.population")
    assert not roots(modules) & (STATISTICS | {"torchvision", "ray"})


@pytest.mark.parametrize("path", python_files("generate"), ids=lambda path: path.stem)
def test_generate_takes_only_version_columns_and_errors_of_popstats(path):
    names = imported(path)
    assert {n for n in names if n.startswith("popstats")} <= {
        "popstats.__version__",
        "popstats.columns",
        "popstats.errors",
    }
    # A chart of costs is drawn by Altair where it is installed, as images come from torchvision.
    assert not roots(names) & (STATISTICS - {"altair"})
    assert not roots(imported(path, top_level_only=True)) & {"torchvision", "ray", "altair"}


@pytest.mark.parametrize("path", python_files("popstats"), ids=lambda path: path.stem)
def test_popstats_takes_neither_torch_nor_generate(path):
    assert not roots(imported(path)) & {"torch", "torchvision", "torch_pruning", "generate", "ray"}


@pytest.mark.parametrize(
    "path", [p for p in python_files("popstats") if p.parent.name != "popstats" or p.name != "__init__.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)  # fmt: skip
def test_no_arrow_runs_back_up(path):
    own = station(".".join(path.relative_to(ROOT).with_suffix("").parts))
    back = {n for n in imported(path) if n.startswith("popstats.") and station(n) > own}
    assert not back, f"{path.relative_to(ROOT)} imports from later in the data flow"


def test_every_module_of_popstats_has_its_station():
    found = {
        path.relative_to(ROOT / "popstats").parts[0].removesuffix(".py") for path in python_files("popstats")
    }
    assert found - {"__init__"} <= set(STATIONS)


def test_no_drawer_for_odds_and_ends():
    for package in ("popstats", "generate"):
        assert not {path.stem for path in python_files(package)} & {"utils", "helpers", "common", "misc"}
