"""A shipped population can be made again: one of its rows, from nothing but the plan in its footer."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from generate.plan import plan_from_dict
from generate.recipes.worklist import Training
from generate.run.prepare import survey
from generate.train.device import provenance_of, settle_on_device
from generate.train.original import OriginalNumbers, make_original, weights_bytes, weights_id
from generate.train.subnetwork import WorkerContext, train_subnetwork
from popstats.population import columns

CPU = torch.device("cpu")
SHIPPED = Path(__file__).parents[3] / "data" / "digits-resnet8.parquet"
# The difference of two trainings has twice the variance of one.
SEED_DEVIATIONS = 3 * np.sqrt(2)


def seed_deviation(rows: list[dict]) -> float:
    """Standard deviation between the seeds of a recipe (percentage points)."""
    accuracies: dict[str, list[float]] = {}
    for row in rows:
        accuracies.setdefault(row["recipe_id"], []).append(row["accuracy"])
    return float(np.sqrt(np.mean([np.var(runs, ddof=1) for runs in accuracies.values() if len(runs) > 1])))


def training_of(row: dict) -> Training:
    """Return what the worklist said of a row, except its place in it."""
    names = {"axis": "regime_axis", "target": "regime_target", "technique": "retraining"}
    known = {field.name: row.get(names.get(field.name, field.name)) for field in fields(Training)}
    return Training.from_dict(known | {"index": 0, "block": 0})


@pytest.mark.slow
def test_a_row_trained_again_from_recipe_and_seed_has_its_accuracy():
    table = pq.read_table(SHIPPED)
    footer = columns.read_footer(table.schema)
    rows = [row for row in table.to_pylist() if row["status"] == "done" and row["retraining"] == "fine-tune"]
    row = rows[np.random.default_rng(0).integers(len(rows))]
    settle_on_device(CPU)
    plan = plan_from_dict(footer["plan"])
    prepared = survey(plan)
    network = make_original(plan, prepared.images, macs=prepared.costs.original_macs, device=CPU)
    original = OriginalNumbers(**footer["original"])
    context = WorkerContext.from_parts(plan, prepared.images, weights_bytes(network), original, CPU)
    again, _ = train_subnetwork(context, training_of(row))

    here = provenance_of(CPU)
    same_machine = all(
        row[name] == here[name] for name in ("torch_version", "cpu_capability", "memory_format")
    )
    exact = weights_id(network.state_dict()) == row["original_id"]
    allowed = SEED_DEVIATIONS * seed_deviation(
        [other for other in rows if other["regime_target"] == row["regime_target"]]
    )
    print(
        f"{row['subnetwork_id'][:12]}: {row['accuracy']:.4f} % then, {again['accuracy']:.4f} % now; "
        f"{'the same' if exact else 'another'} original, machine {'alike' if same_machine else 'different'}, "
        f"code {row['code_version']} then, {here['code_version']} now; allowed otherwise {allowed:.3f} points"
    )
    assert again["status"] == "done"
    assert (again["macs"], again["params"], again["widths"]) == (row["macs"], row["params"], row["widths"])
    if same_machine and exact:
        assert again["accuracy"] == row["accuracy"]
    assert abs(again["accuracy"] - row["accuracy"]) <= allowed
