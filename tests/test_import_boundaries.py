"""Who may import whom: the table is the only thing between the packages, and no arrow runs back up."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

STATIONS = tomllib.loads((ROOT / "stations.toml").read_text())
ACROSS = STATIONS.pop("across")
#: {module: its place in the data flow}, over both packages; a station without files is a module itself.
RANKS = {
    ".".join([package, station, *([file] if file else [])]): place
    for package, stations in STATIONS.items()
    for place, (station, file) in enumerate(
        (station, file) for station, files in stations.items() for file in files or [""]
    )
}
#: The one door that opens upwards: `fit.plot()`.
UPWARD = {"popstats.posterior.fit": {"popstats.plots"}}
PACKAGES = {"popstats", "generate"} | {
    f"{p}.{s}" for p, own in STATIONS.items() for s, files in own.items() if files
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
            # `from popstats.population import columns` imports a module, another `from` a name of one.
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= whole if node.module in PACKAGES else {node.module}
    return names


def roots(names):
    return {name.split(".")[0] for name in names}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def ranked(name):
    """Return the module behind an imported name: `from package import module` names one, `import name` another."""
    return name if name in RANKS else name.rpartition(".")[0]


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


@pytest.mark.parametrize("path", python_files("generate"), ids=module_of)
def test_generate_takes_no_statistics_and_few_modules_of_popstats(path):
    names = imported(path)
    # A chart of costs is drawn by Altair where it is installed, as images come from torchvision.
    assert not roots(names) & (STATISTICS - {"altair"})
    assert not roots(imported(path, top_level_only=True)) & {"torchvision", "ray", "altair"}


@pytest.mark.parametrize("path", python_files("popstats"), ids=module_of)
def test_popstats_takes_neither_torch_nor_generate(path):
    assert not roots(imported(path)) & {"torch", "torchvision", "torch_pruning", "generate", "ray"}


@pytest.mark.parametrize(
    "path",
    [path for package in STATIONS for path in python_files(package) if path.name != "__init__.py"],
    ids=module_of,
)
def test_no_import_runs_back_up(path):
    module = module_of(path)
    package = module.split(".")[0]
    modules = {ranked(name) for name in imported(path) if name.split(".")[0] in STATIONS}
    other = {name for name in modules if name and name.split(".")[0] != package}
    back = {
        name
        for name in modules
        if name in RANKS and name.split(".")[0] == package and RANKS[name] >= RANKS[module]
    }
    back -= UPWARD.get(module, set())
    assert not back, f"{module} imports from later in the data flow"
    assert other <= set(ACROSS[package]), f"{module} takes what stations.toml does not allow across packages"


def test_every_module_has_its_station():
    found = {
        module_of(path)
        for package in STATIONS
        for path in python_files(package)
        if path.name != "__init__.py"
    }
    assert found == set(RANKS)


def test_no_drawer_for_odds_and_ends():
    for package in ("popstats", "generate"):
        assert not {path.stem for path in python_files(package)} & {"utils", "helpers", "common", "misc"}
