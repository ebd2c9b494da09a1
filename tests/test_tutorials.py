"""The documentation's code runs as it stands: tutorials and README block by block, examples as doctests."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = sorted(page.name for page in DOCS.glob("*.md") if "```pycon" in page.read_text())

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
