"""The documentation's code runs as it stands: tutorials and README block by block, examples as doctests."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = sorted(
    str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "```pycon" in page.read_text()
)

pytestmark = pytest.mark.slow


def blocks(page):
    """Return (language, text) of each fenced block that a reader would run or save, in order."""
    return re.findall(
        r"^```(sh|python|toml|pycon)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_give_what_they_show(page):
    examples = "\n".join(text for language, text in blocks(DOCS / page) if language == "pycon")
    case = doctest.DocTestParser().get_doctest(examples, {}, page, page, 0)
    found = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(case, out=found.append)
    assert not found, "".join(found)


@pytest.mark.parametrize("page", ["tutorial-engineer.md", "tutorial-researcher.md"])
def test_tutorials_run_from_the_first_block_to_the_last(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    namespace: dict[str, object] = {}
    for number, (language, text) in enumerate(blocks(DOCS / page)):
        name = f"{page}, block {number + 1}"
        if language == "python":
            exec(compile(text, name, "exec"), namespace)
        elif language == "toml":
            (tmp_path / "tutorial.toml").write_text(text)
        else:
            done = subprocess.run(["bash", "-e"], input=text, env=commands, capture_output=True, text=True)
            assert done.returncode == 0, f"{name}:\n{text}\n{done.stdout}{done.stderr}"


def test_the_readmes_examples_run(tmp_path, monkeypatch):
    """Notebook, recommendation and foreign table; the hand-over is the tutorial's, with other images."""
    monkeypatch.chdir(tmp_path)
    examples = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    (hand_over,) = [text for text in examples if "torch_pruning" in text]
    tutorial = "".join(text for _, text in blocks(DOCS / "tutorial-engineer.md"))
    assert hand_over.partition("pruner.step()")[0].replace("1, 3, 32, 32", "1, 1, 8, 8") in tutorial
    rows = {"flops": [4e8, 5e8], "params": [8e6, 9e6], "accuracy": [92.0, 93.0], "arch": ["a", "b"]}
    names: dict[str, object] = {"frame": pd.DataFrame(rows)}
    for example in examples:
        if example != hand_over:
            exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "report.html").is_file()
    assert len(names["population"]) == 2
