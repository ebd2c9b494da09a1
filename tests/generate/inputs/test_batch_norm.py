"""The compiled batch norm against torch's: the same numbers up to rounding, for every shape and way of use."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn

from generate.export import as_trained
from generate.inputs import kernel
from generate.inputs.batch_norm import fused_batch_norm, normalise
from generate.inputs.images import ImageSet, Split
from generate.inputs.kernel import MOST_LANES, kernel_for, lanes_of, missing_kernel
from generate.inputs.networks import build_network
from generate.plan import TrainingSettings
from generate.run.folder import RunFolder
from generate.run.prepare import worker_context
from generate.train.device import provenance_of
from generate.train.loop import evaluate, fresh_weights, train
from generate.train.subnetwork import known_columns

CPU = torch.device("cpu")
KERNEL = kernel_for(CPU, (3, 32, 32))
needs_kernel = pytest.mark.skipif(KERNEL is None, reason="no AVX-512 here, or no C compiler")
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def layer(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 1.5, channels))
        norm.bias.copy_(torch.linspace(-0.5, 0.5, channels))
    return norm.train()


def features(shape, seed: int) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (3 + 2 * drawn).contiguous(memory_format=torch.channels_last).requires_grad_()


def outcome(compiled, shape, *, with_added: bool, rectify: bool) -> dict[str, torch.Tensor]:
    """Everything a layer computes: output, gradients, running statistics."""
    network = nn.Sequential(layer(shape[1]))
    norm, taken, added = network[0], features(shape, 0), features(shape, 1) if with_added else None
    with fused_batch_norm(network, compiled):
        output = normalise(norm, taken, added, rectify=rectify)
    output.backward(torch.cos(torch.arange(output.numel(), dtype=torch.float32)).view(shape))
    found = {"output": output.detach(), "of_features": taken.grad, "of_weight": norm.weight.grad}
    found |= {"of_bias": norm.bias.grad} | {name: value.clone() for name, value in norm.named_buffers()}
    return found if added is None else found | {"of_added": added.grad}


@needs_kernel
@pytest.mark.parametrize("shape", [(4, 1, 5, 5), (3, 7, 9, 5), (2, 16, 8, 8), (5, 60, 3, 3), (2, 131, 4, 4)])
@pytest.mark.parametrize(
    ("with_added", "rectify"), [(False, False), (False, True), (True, True), (True, False)]
)
def test_the_kernel_computes_what_torch_does(shape, with_added, rectify):
    ours = outcome(KERNEL, shape, with_added=with_added, rectify=rectify)
    torchs = outcome(None, shape, with_added=with_added, rectify=rectify)
    assert ours.keys() == torchs.keys()
    for name, value in torchs.items():
        torch.testing.assert_close(ours[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@needs_kernel
def test_large_means_and_constant_channels_lose_nothing():
    """Mean 10,000 and spread 1: the naive sum of squares would lose the variance; a constant channel has none."""
    network = nn.Sequential(nn.BatchNorm2d(4).train())
    taken = features((8, 4, 16, 16), 2).detach() + torch.tensor([0.0, 1e4, -1e4, 0.0]).view(1, 4, 1, 1)
    taken[:, 3] = 7.0
    with fused_batch_norm(network, KERNEL):
        output = network(taken)
    assert output[:, :3].std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], rel=1e-3)
    assert output[:, 3].abs().max().item() < 1e-3


@needs_kernel
def test_what_the_kernel_cannot_take_goes_to_torch():
    one_value = nn.Sequential(nn.BatchNorm2d(2).train())
    with (
        fused_batch_norm(one_value, KERNEL),
        pytest.raises(ValueError, match="more than 1 value per channel"),
    ):
        one_value(torch.ones(1, 2, 1, 1))
    for norm, taken in (
        (nn.BatchNorm2d(3, affine=False), features((2, 3, 4, 4), 0)),
        (nn.BatchNorm2d(3, momentum=None), features((2, 3, 4, 4), 0)),
        (nn.BatchNorm2d(3), features((2, 3, 4, 4), 0).detach().contiguous()),
        (nn.BatchNorm2d(3).double(), features((2, 3, 4, 4), 0).detach().double()),
        (nn.BatchNorm2d(3).eval(), features((2, 3, 4, 4), 0)),
        (nn.BatchNorm2d(MOST_LANES + 1), features((2, MOST_LANES + 1, 1, 2), 0)),
    ):
        network = nn.Sequential(norm)
        expected = network(taken)
        norm.reset_running_stats()
        with fused_batch_norm(network, KERNEL):
            assert torch.equal(network(taken), expected)


def test_modules_are_everybodys_again_after_training_however_it_ends():
    network = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(ZeroDivisionError), fused_batch_norm(network, KERNEL):
        _ = 1 / 0
    assert type(network[0]) is nn.BatchNorm2d
    assert "kernel" not in vars(network[0])


@pytest.mark.parametrize("channels", [1, 3, 7, 16, 60, 64, 127, 128, 1000, 1001, MOST_LANES])
def test_rows_are_whole_pixels_and_fit(channels):
    lanes = lanes_of(channels)
    assert lanes % channels == 0
    assert lanes <= MOST_LANES
    assert lanes % 16 == 0 or 16 * channels > MOST_LANES


def stripes(count: int = 96) -> ImageSet:
    """Upright against lying stripes: learnt in a few steps."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (count,), generator=drawn)
    wave = (torch.arange(16) % 4 < 2).float().expand(16, 16)
    clean = torch.where(labels.view(-1, 1, 1) == 0, wave, wave.T)
    noisy = clean + 0.3 * torch.randn(count, 16, 16, generator=drawn)
    pixels = (64 + 100 * noisy).clamp(0, 255).to(torch.uint8).unsqueeze(1)
    split = Split(pixels, labels)
    return ImageSet("stripes", split, split, split, 2, (0.4,), (0.25,))


def trained(compiled) -> tuple[nn.Module, float]:
    images = stripes()
    network = build_network("cifar_resnet8", classes=2, input_shape=images.input_shape, width=5)
    fresh_weights(network, 1)
    settings = TrainingSettings(epochs=4, batch_size=16, learning_rate=0.02, augmentation="shift1")
    train(network, images, settings, macs=1, seed=3, device=CPU, kernel=compiled)
    return network, evaluate(network, images, images.test, device=CPU).loss


@needs_kernel
def test_a_training_with_the_kernel_is_the_training_without_it_up_to_rounding():
    (one, loss), (again, _), (plain, plain_loss) = trained(KERNEL), trained(KERNEL), trained(None)
    states = [module.state_dict() for module in (one, again, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.allclose(states[0][name], states[2][name], rtol=0.05, atol=0.02) for name in states[0])
    assert not torch.equal(states[0]["stage1.0.conv1.weight"], states[2]["stage1.0.conv1.weight"])
    assert loss == pytest.approx(plain_loss, rel=0.05)


@needs_kernel
def test_rows_say_what_they_were_trained_with_and_are_trained_again_so(tiny_run):
    """8x8 images have no use for the kernel; had these rows used it, they would say so."""
    folder = RunFolder(tiny_run)
    context, training = worker_context(folder, CPU), folder.read_worklist()[0]
    assert (context.kernel, context.provenance.memory_format) == (None, "channels_last")
    fused = dataclasses.replace(context, kernel=KERNEL, provenance=provenance_of(CPU, KERNEL))
    row = known_columns(fused, training)
    assert row["memory_format"] == "channels_last, fused batch norm"
    assert as_trained(fused, row).kernel is KERNEL
    assert as_trained(fused, known_columns(context, training)).kernel is None
    narrow = dataclasses.replace(context.plan.retraining["fine-tune"], precision="bfloat16")
    plan = dataclasses.replace(context.plan, retraining={"fine-tune": narrow})
    assert known_columns(dataclasses.replace(fused, plan=plan), training)["memory_format"] == "channels_last"


@needs_kernel
def test_a_machine_without_a_compiler_trains_all_the_same_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel, "_loaded", kernel._loaded.__wrapped__)
    assert kernel_for(CPU, (3, 32, 32)) is None
    assert missing_kernel(CPU, (3, 32, 32)).startswith("No C compiler")
    assert not missing_kernel(CPU, (1, 8, 8))
    assert not missing_kernel(torch.device("cuda"), (3, 32, 32))


@needs_kernel
@pytest.mark.parametrize(("cache", "kept"), [("cache", [".so"]), ("/dev/null", [])])
def test_the_kernel_is_kept_where_it_can_be_and_works_where_it_cannot(tmp_path, monkeypatch, cache, kept):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
    built = kernel._loaded.__wrapped__()
    case = {"shape": (3, 7, 9, 5), "with_added": True, "rectify": True}
    expected, found = (outcome(one, **case) for one in (KERNEL, built))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == kept


@needs_kernel
def test_how_it_is_compiled_does_not_change_a_bit(tmp_path, monkeypatch):
    """So that rows of one population agree whatever compiler a node has."""
    other = next(one for one in ("clang", "gcc", "cc") if shutil.which(one))
    found = {}
    for level in ("-O3", "-O1"):
        monkeypatch.setenv("CC", "cc" if level == "-O3" else other)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / level))
        monkeypatch.setattr(kernel, "FLAGS", (level, *kernel.FLAGS[1:]))
        built = kernel._loaded.__wrapped__()
        found[level] = outcome(built, (3, 7, 9, 5), with_added=True, rectify=True)
    assert all(torch.equal(found["-O3"][name], found["-O1"][name]) for name in found["-O3"])
