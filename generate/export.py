"""Take one subnetwork out of a run: `python -m generate.export RUN SUBNETWORK_ID --format safetensors`.

`--format torch-pruning` writes the recipe alone, as the ratios with which Torch-Pruning 1.6.1 makes the same widths.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from generate.inputs.networks import first_line
from generate.population import number, reported
from generate.recipes.worklist import Training
from generate.run.folder import RunFolder, explain, write_whole
from generate.run.prepare import worker_context
from generate.run.statement import layer_recipe, recipe_bytes
from generate.train.loop import evaluate
from generate.train.original import weights_bytes
from generate.train.subnetwork import WorkerContext, cut_network, train_subnetwork
from popstats.errors import RunFolderError

RATIOS = "torch-pruning"
ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", RATIOS: ".json"}
# Retrained or not, an exported network must reach its row's accuracy; other processors sum in another order.
TOLERANCE_POINTS = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m generate.export",
        description="Rebuild one subnetwork of a run, check its accuracy and save it, or save its recipe for Torch-Pruning.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "subnetwork_id", metavar="SUBNETWORK_ID", help="from the table; its first characters are enough"
    )
    parser.add_argument("--format", choices=tuple(ENDINGS), default="safetensors")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: RUN/exports/ID.ENDING")
    parser.add_argument(
        "--tolerance",
        type=number(float, lambda points: 0 <= points <= 100, "percentage points, 0 to 100"),
        default=TOLERANCE_POINTS,
        metavar="POINTS",
        help="largest deviation from the row's accuracy",
    )
    return reported(_export, parser.parse_args(arguments))


def _export(options: argparse.Namespace) -> int:
    print(
        export_subnetwork(options.run, options.subnetwork_id, options.format, options.out, options.tolerance)
    )
    return 0


def export_subnetwork(
    run: Path,
    subnetwork_id: str,
    kind: str = "safetensors",
    out: Path | None = None,
    tolerance: float = TOLERANCE_POINTS,
) -> Path:
    """Rebuild one subnetwork, check its accuracy against its row, and save it; of the ratios nothing needs rebuilding."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if kind == "onnx" and missing:
        raise RunFolderError(
            f"--format onnx: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. "
            "Install with: pip install onnx onnxscript"
        )
    folder = RunFolder(run)
    training, row = _find(folder, subnetwork_id)
    # One thread, as in the workers: the same sums in the same order.
    torch.set_num_threads(1)
    context = worker_context(folder, torch.device("cpu"))
    if kind == RATIOS:
        if context.plan.pruning.kind != "filters":
            raise RunFolderError(
                f"--format {RATIOS}: Torch-Pruning removes filters, and this run prunes weights. Take safetensors."
            )
        recipe = layer_recipe(context.network, context.groups, training.widths)
        content = recipe_bytes(recipe["torch_pruning"])
    else:
        network = _trained_network(folder, context, training)
        reached = evaluate(network, context.images, context.images.test, device=context.device).accuracy
        if abs(reached - row["accuracy"]) > tolerance:
            raise RunFolderError(
                f"{training.subnetwork_id}: reaches {reached:.3f} % here, but its row says "
                f"{row['accuracy']:.3f} % (trained on {row['device']}, "
                f"{row['cpu_capability']}, {row['memory_format']}, torch {row['torch_version']}). "
                "Nothing was written. Export on the kind of machine that trained it, "
                'keep weights in the plan (keep_weights = "all"), or allow for seed noise with --tolerance.'
            )
        content = _content(context, network, row, kind)
    path = out or run / "exports" / f"{training.subnetwork_id}{ENDINGS[kind]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, path.parent) from error
    write_whole(path, content)
    return path


def _find(folder: RunFolder, subnetwork_id: str) -> tuple[Training, dict[str, Any]]:
    finished = folder.finished()
    found = [
        training for training in folder.read_worklist() if training.subnetwork_id.startswith(subnetwork_id)
    ]
    if len(found) != 1:
        what = "no subnetwork" if not found else f"{len(found)} subnetworks"
        raise RunFolderError(
            f"{folder.path} has {what} whose id begins with {subnetwork_id!r}; expected one. The ids "
            "are in the table's column subnetwork_id."
        )
    training = found[0]
    if training.index not in finished:
        raise RunFolderError(
            f"{folder.path}: {training.subnetwork_id} has not been trained yet. Resume the run first."
        )
    row = folder.read_row(training.index)
    if row["status"] == "failed":
        raise RunFolderError(
            f"{folder.path}: the training of {training.subnetwork_id} failed ({row['error']}); there "
            "is nothing to export."
        )
    return training, row


def _trained_network(folder: RunFolder, context: WorkerContext, training: Training) -> nn.Module:
    """Load the kept weights, or train again from recipe and seed where none were kept."""
    path = folder.trained_weights(training.subnetwork_id)
    if path.exists():
        return cut_network(context, training, path).eval()
    print(
        "The weights were not kept (keep_weights in the plan): training again from recipe and seed.",
        flush=True,
    )
    row, trained = train_subnetwork(context, training)
    if trained is None:
        raise RunFolderError(f"{training.subnetwork_id}: training it again failed ({row['error']}).")
    return trained.eval()


def _content(context: WorkerContext, network: nn.Module, row: dict[str, Any], kind: str) -> bytes:
    # What someone needs to rebuild and feed the network, for the file's metadata.
    names = ("subnetwork_id", "network", "dataset", "input_size", "accuracy", "macs", "params")
    held = {name: row[name] for name in names} | {"mean": context.images.mean, "std": context.images.std}
    for name in ("widths", "densities"):
        if row.get(name):
            held[name] = dict(zip(row["group_names"], row[name], strict=True))
    card = {name: value if isinstance(value, str) else json.dumps(value) for name, value in held.items()}
    network = network.to("cpu").to(memory_format=torch.contiguous_format).eval()
    if kind == "safetensors":
        return weights_bytes(network, card)
    try:
        program = torch.onnx.export(
            network,
            (torch.zeros(1, *context.images.input_shape),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    except RuntimeError as error:
        raise RunFolderError(
            f"{row['subnetwork_id']}: {row['network']} cannot be written as {kind} ({first_line(error)}). "
            "Take another --format."
        ) from error
    # One file, weights included: by itself torch puts larger weights into a second file beside it.
    model = cast(Any, program).model_proto
    for name, value in card.items():
        model.metadata_props.add(key=name, value=value)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
