"""What would happen on a GPU, without one: fake tensors know their device, refuse those of another, and hold no data.

Every read of a value (which on a GPU means to wait for it) and every copy between host and GPU passes through one
place here and is counted. Backward passes need a real device in autograd's engine, so gradients are put in place
by walking the graph that the forward pass left.
"""

import dataclasses
from collections import Counter

import pytest
import torch
import torch._dynamo.source
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet, Split
from generate.inputs.networks import build_network
from generate.plan import ImagesPlan, TrainingSettings
from generate.run.folder import RunFolder
from generate.run.prepare import worker_context
from generate.train import device as provenance
from generate.train import subnetwork as subnetworks
from generate.train.device import default_workers, worker_devices
from generate.train.loop import evaluate, fresh_weights, recalibrate, train
from generate.train.original import weights_bytes
from generate.train.subnetwork import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    DeviceError,
    WorkerContext,
    cut_network,
    measure_latency,
    train_subnetwork,
)
from generate.workers.local import DEVICE_FAILURES, _ending

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# What fake tensors say of devices that meet: in torch 2.15, and before.
TWO_DEVICES = "at least two devices|two different devices"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FakeGpu(FakeTensorMode):
    """Fake tensors that count what a real GPU would be waited for."""

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.waits = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.waits["read"] += args[0].device.type == "cuda"
            # Whole numbers are correct answers: as many as there can be, so that no network seems to guess.
            return 0.5 if args[0].is_floating_point() else 10**6
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func in COPIES:
            self._count_copy(func, args, kwargs or {}, result)
        if isinstance(result, FakeTensor):
            # Else values that are known beforehand would be computed for real, on a device that is not there.
            result.constant = None
        return result

    def _count_copy(self, func, args, kwargs, result):
        target, source = (result, args[0]) if func is COPIES[0] else args[:2]
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        if target.device.type != source.device.type and not non_blocking:
            self.waits[f"{source.device.type} to {target.device.type}"] += 1


def put_gradients(loss, *_, **__):
    """Give every parameter behind `loss` a gradient like itself, as backward does."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.empty_like(node.variable)


def move(module, convert, recurse=True):
    """`nn.Module._apply` without its exchange of tensors in place, which fake ones do not take part in."""
    for child in module.children():
        child._apply(convert)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(convert(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


@pytest.fixture
def generators(monkeypatch):
    """The devices that generators were made for; a generator of a GPU needs one."""
    made, plain = [], torch.Generator

    def generator(device="cpu"):
        made.append(torch.device(device).type)
        return plain()

    monkeypatch.setattr(torch, "Generator", generator)
    return made


@pytest.fixture
def gpu(monkeypatch, generators):
    monkeypatch.setattr(torch.Tensor, "backward", put_gradients)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(nn.Module, "_apply", move)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "fake GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**40, 2**40))
    with FakeGpu() as mode:
        yield mode


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_images(ImagesPlan(limit=100))


def network(images: ImageSet) -> nn.Module:
    built = build_network("cifar_resnet8", classes=10, input_shape=images.input_shape, width=0.25)
    fresh_weights(built, 0)
    return built.to(CUDA)


def devices(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


def test_the_check_itself_sees_what_a_gpu_would_refuse_or_wait_for(gpu):
    there = torch.ones(3, device=CUDA)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        there + torch.ones(3)
    there.cpu()
    torch.tensor([1.0]).to(CUDA)
    torch.tensor([1.0]).to(CUDA, non_blocking=True)
    there.sum().item()
    assert gpu.waits == {"cuda to cpu": 1, "cpu to cuda": 1, "read": 1}


SETTINGS = TrainingSettings(epochs=3, batch_size=20, augmentation="flip+crop2+cutout2", label_smoothing=0.1)


@pytest.mark.parametrize("resident", [True, False], ids=["images there", "images on the host"])
def test_a_training_waits_for_the_gpu_once_an_epoch(gpu, generators, digits, resident):
    images = digits.to(CUDA) if resident else digits
    trained = network(images)
    gpu.waits.clear()
    train(trained, images, SETTINGS, macs=1, seed=0, device=CUDA)
    # Two more copies before the first step: mean and standard deviation of the pixels.
    assert gpu.waits == {"read": 3, "cpu to cuda": 2}
    assert devices(trained) == {"cuda"}
    assert all(parameter.grad.device == CUDA for parameter in trained.parameters())
    # Augmentation's numbers are drawn where images are augmented, their order where they lie.
    assert generators == ["cuda", "cuda" if resident else "cpu"]


@pytest.mark.parametrize("resident", [True, False], ids=["images there", "images on the host"])
def test_evaluation_and_recalibration_stay_on_the_gpu(gpu, digits, resident):
    images = digits.to(CUDA) if resident else digits
    measured = network(images)
    gpu.waits.clear()
    evaluate(measured, dataclasses.replace(images, test_shift=1), images.test, device=CUDA)
    assert gpu.waits == {"read": 2, "cpu to cuda": 2}
    recalibrate(measured, images, device=CUDA)
    assert gpu.waits == {"read": 2, "cpu to cuda": 4}
    assert devices(measured) == {"cuda"}


def test_activations_are_channels_last_on_a_gpu(gpu, digits):
    images, seen = digits.to(CUDA), []
    trained = network(images)
    trained.stage2.register_forward_hook(lambda _, taken, given: seen.append(given))
    train(trained, images, dataclasses.replace(SETTINGS, epochs=0.2), macs=1, seed=0, device=CUDA)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert trained.stage2[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_latency_is_measured_on_the_gpu(gpu, digits):
    assert measure_latency(network(digits), digits.input_shape, batch=2, device=CUDA) > 0


@pytest.fixture(scope="module")
def parts(tiny_run):
    """A prepared folder's parts, opened on the CPU with real numbers; one training, and its network, which is cut there."""
    folder = RunFolder(tiny_run)
    context, training = worker_context(folder, CPU), folder.read_worklist()[0]
    return context, training, cut_network(context, training)


@pytest.fixture(scope="module")
def weights(parts):
    """The original's weights as a file's bytes, read before any tensor is a fake one."""
    return weights_bytes(parts[0].network)


def test_a_whole_training_from_the_cut_network_to_its_row(parts, gpu, monkeypatch):
    opened, training, network_cut = parts
    monkeypatch.setattr(subnetworks, "choose_filters", lambda *_: {})
    monkeypatch.setattr(subnetworks, "cut", lambda *_: network_cut)
    context = dataclasses.replace(
        opened, device=CUDA, images=opened.images.to(CUDA), provenance=provenance.provenance_of(CUDA)
    )
    row, trained = train_subnetwork(context, training)
    assert row["error"] == ""
    assert row["status"] == "done"
    assert (row["device"], row["memory_format"]) == ("fake GPU", "channels_last")
    assert devices(trained) == {"cuda"}
    assert devices(context.network) == {"cpu"}


def test_a_worker_keeps_network_and_scores_on_the_host_and_images_on_the_gpu(
    parts, weights, monkeypatch, gpu
):
    opened = parts[0]
    # Groups are read off real values, which fake tensors do not have.
    monkeypatch.setattr(subnetworks, "copy_network", lambda network: network)
    monkeypatch.setattr(subnetworks, "find_groups", lambda *_: opened.groups)
    monkeypatch.setattr(subnetworks, "score_filters", lambda *_, **__: {})
    context = WorkerContext.from_parts(opened.plan, opened.images, weights, opened.original, CUDA)
    assert context.images.train.images.device == CUDA
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1000, 1000))
    context = WorkerContext.from_parts(opened.plan, opened.images, weights, opened.original, CUDA)
    assert context.images.train.images.device == CPU


def test_a_gpu_that_fails_ends_its_process_and_not_the_recipe(parts, monkeypatch):
    opened, training, _ = parts
    context = dataclasses.replace(opened, device=CUDA)

    def fails(error):
        def training_of(*_, **__):
            raise error

        return training_of

    monkeypatch.setattr(subnetworks, "cut_network", fails(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(DeviceError, match="cuda:0 is out of memory") as caught:
        train_subnetwork(context, training)
    assert caught.value.exit_code == OUT_OF_MEMORY
    monkeypatch.setattr(subnetworks, "cut_network", fails(RuntimeError("CUDA error: an illegal access")))
    monkeypatch.setattr(torch.cuda, "synchronize", fails(RuntimeError("CUDA error: an illegal access")))
    with pytest.raises(DeviceError, match="does not answer") as caught:
        train_subnetwork(context, training)
    assert caught.value.exit_code == DEVICE_LOST
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    row, _ = train_subnetwork(context, training)
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: CUDA error: an illegal access")
    assert [_ending(code) for code in (OUT_OF_MEMORY, DEVICE_LOST)] == list(DEVICE_FAILURES.values())


def test_workers_are_dealt_out_over_all_gpus_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
    assert default_workers(torch.device("cuda")) == 8
    assert default_workers(torch.device("cuda:1")) == 4
    assert worker_devices(torch.device("cuda"), 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker_devices(torch.device("cuda:1"), 2) == ["cuda:1", "cuda:1"]


def test_one_image_set_is_refused_on_two_devices(gpu, digits):
    """The check that the whole file rests on, on our own code: labels left behind must be seen."""
    there = digits.to(CUDA)
    split = Split(there.train.images, digits.train.labels)
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        train(network(there), dataclasses.replace(there, train=split), SETTINGS, macs=1, seed=0, device=CUDA)
