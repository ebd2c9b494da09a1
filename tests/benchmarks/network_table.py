"""The table docs/networks.md: which networks can be pruned, proven and counted, and why others are refused.

`python -m tests.benchmarks.network_table` goes through all networks and writes the page; what is in build/networks.json is
taken from there, so that the command can be interrupted and run again.
"""

import importlib.metadata
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import torch

import generate
from generate.inputs.networks import build_network
from generate.prune.cost_forms import cost_forms
from generate.prune.verify import counted_macs
from popstats.errors import PlanError
from tests.generate.prune import test_zoo, transformers

FOUND, PAGE = Path("build/networks.json"), Path("docs/networks.md")
#: By input size: names of torchvision's classifiers and of our own.
NAMED = {
    "3x224x224": "maxvit_t vit_b_16 vit_b_32 resnet50",
    "3x64x64": "alexnet vgg11 vgg16_bn resnet18 resnet34 resnet50 resnet101 resnext50_32x4d "
    "densenet121 densenet169 mobilenet_v2 "
    "mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet1_0 shufflenet_v2_x0_5 "
    "shufflenet_v2_x1_0 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 googlenet efficientnet_b0 "
    "efficientnet_b1 efficientnet_b3 efficientnet_v2_s regnet_x_400mf regnet_y_400mf regnet_x_1_6gf "
    "regnet_y_1_6gf convnext_tiny convnext_small swin_t swin_v2_t",
    "3x96x96": "inception_v3",
    "3x32x32": "cifar_resnet8 cifar_resnet20 cifar_resnet56",
    "1x8x8": "digits_vit",
}
#: Small members of timm's families, tried where timm is installed.
TIMM = {
    "3x64x64": "test_byobnet test_coatnet test_convnext test_efficientnet test_efficientnet_ln test_mambaout test_maxvit "
    "test_resnet test_vit test_vit3 test_vit4 test_vit_relpos resmlp_12_224 mixer_s32_224 deit_tiny_distilled_patch16_224 "
    "lcnet_050 tinynet_e mobilenetv4_conv_small mobileone_s0 ghostnet_050 repghostnet_050 starnet_s050 "
    "efficientvit_m0 efficientvit_b0 mobilevit_xxs mobilevitv2_050 edgenext_xx_small pit_ti_224 repvit_m0_9 dla34 "
    "rexnet_100 resnest14d skresnet18 resnetv2_18 eva02_tiny_patch14_224 poolformer_s12 poolformerv2_s12",
}
#: Small networks of the tests, in the shapes that people write.
SMALL = {
    "attention of timm (head size from attributes)": transformers.CUT["fused"],
    "attention of timm (head size from the input)": transformers.TIED["from shape"],
    "attention of nanoGPT": transformers.TIED["split by width"],
    "attention of PVT": transformers.TIED["two from shape"],
    "attention of Hugging Face's ViT": transformers.CUT["hugging face"],
    "attention of T5": transformers.CUT["inner width"],
    "attention of Llama (grouped queries)": transformers.PAIRS["grouped, expanded"],
    "torch.nn.TransformerEncoder": transformers.CUT["torch's encoder"],
    "attention whose weights are read": transformers.REFUSED["torch, weights read"][0],
    **{
        name: test_zoo.CUT[name]
        for name in (
            *("C2f", "Res2Net", "dense", "squeeze and excite", "4-D shuffle", "pixel shuffle"),
            *("LSTM whole", "weight norm kept", "folded groups"),
        )
    },
    "LSTM behind one convolution": test_zoo.REFUSED["LSTM behind one convolution"][0],
    "width written into the code": test_zoo.REFUSED["width written into the code"][0],
}


def row(make, shape):
    """Return what one network comes to: groups, costs counted twice, seconds of CPU, or the refusal."""
    torch.manual_seed(0)
    network = make()
    started = time.process_time()
    try:
        groups = generate.find_groups(network, shape)
    except PlanError as refusal:
        return {"refused": str(refusal), "seconds": time.process_time() - started}
    seconds = time.process_time() - started
    costs, rng = cost_forms(network, shape, groups), np.random.default_rng(0)
    kept = {
        g.name: np.concatenate([np.flatnonzero(g.blocks == b)[:quota] for b in range(g.step)])
        for g in groups
        for quota in [int(rng.integers(1, g.width // g.step + 1))]
    }
    small = generate.cut(network, shape, groups, kept)
    equal = all(
        costs.both([widths[g.name] for g in groups])
        == (counted_macs(found, shape), sum(p.numel() for p in found.parameters()))
        for found, widths in (
            (network, {g.name: g.width for g in groups}),
            (small, {name: len(filters) for name, filters in kept.items()}),
        )
    )
    counts = {"macs": costs.original_macs, "params": costs.original_params, "equal": equal}
    return {"groups": len(groups), **counts, "seconds": seconds}


def page(found):
    """Return the page's text."""
    exact = sum("groups" in held for held in found.values())
    text = f"""# Networks that can be pruned

{exact} of {len(found)} networks tried are cut exactly; the others are refused before anything is trained, by a sentence
that names the layer. *Exact*: on random weights, cuts at random widths compute what the original computes with the same
filters silenced, in training and in evaluation mode. *Counted*: MACs and parameters of the original and of a random cut
equal those of torch's `FlopCounterMode` (halved) and of the parameters themselves. Seconds are CPU seconds of one core
for finding the groups and proving them. `python -m tests.benchmarks.network_table` makes this page.
"""
    lines = [
        text,
        "| network | input | groups | MACs | parameters | exact | counted | s |",
        "|---|---|---:|---:|---:|---|---|---:|",
    ]
    for name, held in found.items():
        network, _, size = name.rpartition(" @ ")
        if "refused" in held:
            lines.append(f"| {network} | {size} | refused: {held['refused']} |||||{held['seconds']:.1f} |")
        else:
            costs = f"{held['groups']} | {held['macs']:,} | {held['params']:,}"
            equal = "yes" if held["equal"] else "**no**"
            lines.append(f"| {network} | {size} | {costs} | yes | {equal} | {held['seconds']:.1f} |")
    return "\n".join(lines) + "\n"


def main():
    """Try what has not been tried yet, and write the page."""
    jobs = {f"{name} @ {size}": (name, size) for size, names in NAMED.items() for name in names.split()}
    jobs |= {f"{name} @ 3x8x8": (make, "3x8x8") for name, make in SMALL.items()}
    if importlib.util.find_spec("timm"):
        version = importlib.metadata.version("timm")
        jobs |= {
            f"timm {version}/{name} @ {size}": (f"timm {version}/{name}", size)
            for size, names in TIMM.items()
            for name in names.split()
        }
    found = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    FOUND.parent.mkdir(exist_ok=True)
    for key, (name, size) in reversed(jobs.items()):  # the small ones first
        if key not in found:
            shape = tuple(int(part) for part in size.split("x"))
            found[key] = row(lambda: built(name, shape) if isinstance(name, str) else name(), shape)  # noqa: B023
            print(key, found[key], flush=True)
            FOUND.write_text(json.dumps(found, indent=1))
            PAGE.write_text(page({key: found[key] for key in [*jobs, *found] if key in found}))


def built(name, shape):
    """Return a named network for ten classes."""
    if not name.startswith("timm "):
        return build_network(name, classes=10, input_shape=shape)
    timm = importlib.import_module("timm")
    name = name.rpartition("/")[2]
    try:
        return timm.create_model(name, num_classes=10, img_size=shape[-1])
    except TypeError:  # takes images of any size
        return timm.create_model(name, num_classes=10)


if __name__ == "__main__":
    main()
