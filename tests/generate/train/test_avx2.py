"""Training where channels-last is not safe: on AVX2, as on processors without AVX-512 (oneDNN issue 6035).

There a 1x1 stride-2 convolution with fewer than 8 input channels, which cut networks do have, corrupted memory in
channels-last. The settings that make torch and oneDNN take AVX2 are read when torch is imported: hence the subprocess.
"""

import json
import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import json
import torch
from torch import nn
from torch.nn import functional
from generate.inputs.images import ImageSet, Split
from generate.plan import TrainingSettings
from generate.train.device import memory_format
from generate.train.loop import evaluate, train

def network():
    torch.manual_seed(0)
    shortcut = nn.Conv2d(5, 12, 1, stride=2, bias=False)
    layers = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), shortcut, nn.BatchNorm2d(12)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))

cpu, count, rate = torch.device("cpu"), 16, 0.1
pixels = torch.randint(0, 256, (count, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
split = Split(pixels, torch.arange(count) % 4)
images = ImageSet("random", split, split, split, 4, (0.5,) * 3, (0.25,) * 3)
settings = TrainingSettings(
    epochs=5, batch_size=count, learning_rate=rate, schedule="constant", momentum=0.0, weight_decay=0.0
)
ours = network()
train(ours, images, settings, macs=1, seed=0, device=cpu)

# By hand, without oneDNN, in NCHW; the order of the images in a batch of all of them does not matter.
reference = network().train()
batch = (pixels.double() / 255 - 0.5) / 0.25
reference.double()
for _ in range(5):
    loss = functional.cross_entropy(reference(batch), split.labels)
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(reference.parameters(), gradients):
            parameter -= rate * gradient
pairs = zip(ours.parameters(), reference.parameters())
test = evaluate(ours, images, split, device=cpu)
print(json.dumps({
    "capability": torch.backends.cpu.get_cpu_capability(),
    "contiguous": memory_format(cpu) is torch.contiguous_format,
    "difference": max((a.double() - b).abs().max().item() for a, b in pairs),
    "loss": test.loss,
}))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86-64")
def test_a_cut_networks_shortcut_trains_safely_on_avx2():
    forced = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **forced},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["capability"] == "AVX2"
    assert seen["contiguous"]
    assert seen["difference"] < 1e-4
    assert 0 < seen["loss"] < 10
