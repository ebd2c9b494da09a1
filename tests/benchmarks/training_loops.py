"""One training by one of two loops, alone in its process; what `test_training.py` starts and compares.

    python training_loops.py '{"loop": "ours", "network": "cifar_resnet8", "images": "images.npz", ...}'

"ours" is `generate.train.loop` as a worker runs it. "plain" is the loop that people write: torchvision's transforms on
PIL images one by one, a DataLoader, eager, NCHW, torch.optim.SGD, torch's own memory handling.
Prints one line of JSON. Its clock is CPU time on a CPU (one thread: wall time on an idle machine), wall time on a GPU.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from generate.inputs.images import ImageSet, Split
from generate.inputs.networks import build_network
from generate.plan import TrainingSettings
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from generate.train.device import settle_on_device
from generate.train.loop import evaluate, fresh_weights, learning_rates, train

CROP = 4
PLAIN_WORKERS = {"cpu": 0, "cuda": 4}


def main(task):
    device = torch.device(task["device"])
    images = read_images(task["images"])
    network = make_network(task, images).to(device)
    settings = TrainingSettings(**task["settings"])
    loop = {"ours": our_loop, "plain": plain_loop}[task["loop"]]
    seconds = loop(network, images, settings, task["seed"], device)
    test = evaluate(network, images, images.test, device=device)
    per_epoch = len(images.train) // settings.batch_size * settings.batch_size
    print(json.dumps({"images_per_second": per_epoch * settings.epochs / seconds, "accuracy": test.accuracy}))


def read_images(path):
    stored = {name: torch.from_numpy(values) for name, values in np.load(path).items()}
    train_split = Split(stored["train_images"], stored["train_labels"])
    test_split = Split(stored["test_images"], stored["test_labels"])
    pixels = train_split.images.double() / 255
    mean, std = (tuple(values.tolist()) for values in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    return ImageSet("benchmark", train_split, test_split, test_split, 10, mean, std)


def make_network(task, images):
    """Fresh weights, cut to the widths; which filters go does not matter then."""
    network = build_network(task["network"], classes=images.classes, input_shape=images.input_shape)
    groups = find_groups(network, images.input_shape)
    scores = {group.name: torch.ones(group.width) for group in groups}
    network = cut(network, groups, choose_filters(scores, groups, task["widths"]))
    fresh_weights(network, task["seed"])
    return network


def clock(device):
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def our_loop(network, images, settings, seed, device):
    settle_on_device(device)
    resident = images.to(device)
    started = clock(device)
    train(network, resident, settings, macs=1, seed=seed, device=device)
    return clock(device) - started


class PilImages(Dataset):
    """As torchvision's CIFAR10: an image is made from its array, then transformed, whenever it is asked for."""

    def __init__(self, images):
        from torchvision import transforms

        self.pixels = images.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.input_shape[1], padding=CROP),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[place])), self.labels[place]


def plain_loop(network, images, settings, seed, device):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    workers = PLAIN_WORKERS[device.type]
    loader = DataLoader(
        PilImages(images),
        batch_size=settings.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    rates = iter(learning_rates(settings, round(settings.epochs) * len(loader)))
    started = clock(device)
    for _ in range(round(settings.epochs)):
        plain_epoch(network, loader, optimizer, rates, device)
    return clock(device) - started


def plain_epoch(network: nn.Module, loader, optimizer, rates, device):
    network.train()
    for batch, labels in loader:
        for group in optimizer.param_groups:
            group["lr"] = next(rates)
        batch, labels = batch.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimizer.zero_grad()
        functional.cross_entropy(network(batch), labels).backward()
        optimizer.step()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
