"""The notebook runs from its first cell to its last, and its words hold for the numbers that it computes."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# The kernel is other people's code in another process; its warnings are not ours to fix.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

NOTEBOOK = Path(__file__).parents[1] / "reports" / "notebooks" / "first_look.ipynb"
#: What the test asks of the finished notebook, beyond what its cells show.
QUESTION = """
import json
print(json.dumps({
    "student": {v.regime: [v.outcome, v.probability, v.sentence] for v in verdicts if v.conjecture == "C3a"},
    "widths": {v.regime: v.outcome for v in verdicts if v.conjecture == "M1"},
    "normal": sorted({v.outcome for v in popstats.judge(quick) if v.conjecture == "C3a"}),
    "space": [space.mcb, str(path)],
}))
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(QUESTION))
    folder = str(tmp_path_factory.mktemp("notebook"))
    return NotebookClient(notebook, timeout=180, resources={"metadata": {"path": folder}}).execute()


def test_fifteen_cells_at_most_and_no_outputs_are_committed():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")


def test_every_cell_shows_something_and_objects_show_themselves_as_html(executed):
    cells = [c for c in executed.cells if c.cell_type == "code"]
    assert all(c.outputs for c in cells)
    assert not [o for c in cells for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]
    ends = [c.outputs[-1] for c in cells[:-2]]
    assert all({"text/html", "image/svg+xml"} & set(end.data) for end in ends)


def test_the_words_between_the_cells_hold(executed):
    told = json.loads(executed.cells[-1].outputs[0].text)
    outcome, probability, sentence = told["student"]["0.92"]
    assert outcome == "supported"
    assert probability >= 0.95
    assert 0.7 < float(sentence.split("the optimal mCB is ")[1].split()[0]) < 0.9
    assert "supported" not in {told["student"][regime][0] for regime in ("0.20", "0.35")}
    assert "undecided" in {other[0] for other in told["student"].values()}
    assert told["widths"]["0.92"] == "refuted"
    assert "they explain only" in sentence
    assert "the cause of the optimum is unresolved" in sentence
    assert "supported" not in told["normal"]


def test_the_verdicts_are_read_as_sentences_and_the_curves_need_no_network(executed):
    shown = [
        c.outputs[-1].data for c in executed.cells if c.cell_type == "code" and c.outputs[-1].get("data")
    ]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert any("both ends of the observed range" in table for table in tables)
    assert not any("<script" in table for table in tables)
    assert any("image/svg+xml" in data for data in shown)


def test_the_refined_space_lies_about_the_best_mcb_and_is_written(executed):
    (low, high), path = json.loads(executed.cells[-1].outputs[0].text)["space"]
    assert 0.7 < low < high < 0.9
    assert "[refined]" in Path(path).read_text(encoding="utf-8")
