"""What a search hands over: recipe, weights, and one small HTML page that opens offline, light and dark, on a phone too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from html import escape
from string import Template

from generate.prune.dependency_graph import Group
from generate.run.folder import RunFolder, write_whole
from generate.run.progress import duration
from generate.run.statement import NAMES, Statement, make_statement, recipe_bytes, recipe_content
from generate.train.original import OriginalNumbers
from generate.train.subnetwork import WorkerContext

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>
:root { color-scheme: light dark; --line: #8884; --winner: #1f77b4; --torch-pruning: #ff7f0e; --uniform: #999; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; } .wide { overflow-x: auto; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.lead { border: 1px solid var(--line); border-left: 4px solid var(--winner); padding: .6rem 1rem; }
.bar { height: .6rem; margin: 1px 0; background: var(--uniform); } .winner { background: var(--winner); }
.torch-pruning { background: var(--torch-pruning); } .layer { margin: .8rem 0; break-inside: avoid; }
.track { background: var(--line); } .name { display: flex; justify-content: space-between; flex-wrap: wrap; }
code, pre { font-family: ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
.key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; }
@media (max-width: 34rem) { table { font-size: .76rem; } th, td { padding: .25rem .2rem; } }
@media print { .bar, .track, .key span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style></head><body>
<h1>$title</h1>
<div class="lead">$lead</div>
<h2>Accuracy on held-out images</h2>
<div class="wide"><table><thead><tr><th>recipe</th><th>accuracy</th><th>gain of the winner</th><th>90 % interval</th>
<th>apparent gain of the best training</th><th>MACs left</th><th>parameters left</th></tr></thead><tbody>
$rows
</tbody></table></div>
<p>Accuracy: mean over $seeds fresh seeds on $images images on which no choice was based. Intervals are over seeds and
images. The best training of the search was selected by its own noise, so its apparent gain is too high: a warning, not a
result. The network in <code>winner.safetensors</code> is the confirmation network with the best
search outcome; it alone reaches $network_accuracy %.</p>
<h2>Which width for which layer</h2>
<p class="key"><span class="winner"></span>winner<span class="torch-pruning"></span>Torch-Pruning<span
class="bar"></span>uniform</p>
$layers
<h2>What it cost</h2>
<p>$cost</p>
<h2>Reproduce it</h2>
<pre>$command</pre>
<h2>Load it</h2>
<pre>$loader</pre>
</body></html>
""")


def hand_over(folder: RunFolder, context: WorkerContext, python: str) -> None:
    """Write recipe, weights and page of the winner; print what it gained."""
    out, original, statement = folder.path, context.original, make_statement(folder, context)
    weights, recipe, page = out / "winner.safetensors", out / "recipe.json", out / "report.html"
    write_whole(weights, folder.trained_weights(statement.network_id).read_bytes())
    write_whole(recipe, recipe_bytes(recipe_content(context, statement)))
    named, images = context.plan.network, context.images
    # The architecture of the original, then the winner in its place.
    loader = (
        "import generate\nfrom generate.inputs.networks import build_network\n\n"
        f"network = build_network({named.name!r}, classes={images.classes}, input_shape={images.input_shape}, "
        f"width={named.width}, stem={named.stem!r})\n"
        f"network = generate.load_subnetwork({str(recipe)!r}, {str(weights)!r}, network)\n"
    )
    again = str(out.with_name(f"{out.name}-again"))
    command = shlex.join([python, "-m", "generate.winner", f"{out}/plan.toml", "--out", again])
    write_whole(page, _page(context, statement, command, loader).encode())
    winner, groups = statement.winner, context.groups
    export = [python, "-m", "generate.export", str(out), statement.network_id[:12], "--format", "onnx"]
    print(
        *statement.sentences(),
        f"Widths: {', '.join(f'{g.name} {w}' for g, w in zip(groups, winner.widths, strict=True))}",
        f"Costs: {_share(winner.macs, original.macs)} of the MACs, {_share(winner.params, original.params)} of the "
        f"parameters. The network handed over reaches {statement.network_accuracy:.2f} % on these images.",
        f"Written: {weights}, {recipe}, {page}\n\nLoad it:\n{loader}\nNext:\n  {shlex.join(export)}",
        sep="\n",
    )


def _page(context: WorkerContext, statement: Statement, command: str, loader: str) -> str:
    search, original = statement.search, context.original
    axis = "MACs" if search.axis == "macs" else "parameters"
    title = f"{original.network} on {original.dataset}: {100 * search.reduction:.4g} % of the {axis} removed"
    cost = (
        f"{statement.trainings} trainings, {duration(statement.seconds)} of training time in all "
        f"({search.trainings} for the search, {search.confirm} for each confirmed recipe). Original: "
        f"{original.accuracy:.2f} %, {original.macs:,} MACs, {original.params:,} parameters."
    )
    return PAGE.substitute(
        title=escape(title),
        lead="".join(f"<p>{escape(sentence)}</p>" for sentence in statement.sentences()),
        rows="\n".join(_rows(original, statement)),
        seeds=search.confirm,
        images=f"{statement.images:,}",
        network_accuracy=f"{statement.network_accuracy:.2f}",
        layers="\n".join(_layers(context.groups, statement)),
        cost=escape(cost),
        command=escape(command),
        loader=escape(loader),
    )


def _rows(original: OriginalNumbers, statement: Statement) -> Iterator[str]:
    for arm in (statement.winner, *statement.baselines):
        gain, claim = arm.gain, arm.best_observed
        cells = [
            escape(NAMES.get(arm.name, arm.name)),
            f"{arm.accuracy:.2f} %",
            "" if gain is None else f"{gain.mean:+.2f}",
            "" if gain is None else f"{gain.lower:+.2f} to {gain.upper:+.2f}",
            "" if claim is None else f"{claim:+.2f}",
            _share(arm.macs, original.macs),
            _share(arm.params, original.params),
        ]
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %"


def _layers(groups: Sequence[Group], statement: Statement) -> Iterator[str]:
    shown = [statement.winner, *statement.baselines[:2]]  # Torch-Pruning and uniform come first
    for place, group in enumerate(groups):
        bars = "".join(
            f'<div class="track"><div class="bar {arm.name}" style="width:{100 * arm.widths[place] / group.width:.2f}%" '
            f'title="{arm.widths[place]}"></div></div>'
            for arm in shown
        )
        kept = ", ".join(str(arm.widths[place]) for arm in shown)
        yield (
            f'<div class="layer"><div class="name"><code>{escape(group.name)}</code>'
            f"<span>{kept} of {group.width}</span></div>{bars}</div>"
        )
