"""Shipped plans can be carried out: networks, groups, costs and every recipe, before anybody spends a download on them."""

from collections import Counter

import pytest
import torch

from generate.inputs.images import ImageSet, Split
from generate.plan import DEFAULT_PLAN, ImagesPlan, Plan, read_plan, read_study
from generate.recipes.worklist import Place, with_identities
from generate.run.prepare import survey
from popstats.errors import PlanError

# Classes and image size (pixels) of the sets that shipped plans name; 1,000 is ImageNet's.
CLASSES = {"cifar10": 10, "imagenet": 1000}


def stand_in(plan: ImagesPlan, classes: int) -> ImageSet:
    """A few images of the size and classes that the plan's own set has."""
    size = plan.size or 32
    split = Split(torch.zeros(4, 3, size, size, dtype=torch.uint8), torch.arange(4))
    return ImageSet(plan.name, split, split, split, classes, (0.5,) * 3, (0.25,) * 3)


SHIPPED = {
    plan.name: plan
    for path in sorted(DEFAULT_PLAN.parent.glob("*.toml"))
    for plan in read_study(path).plans.values()
}


@pytest.mark.parametrize("plan", SHIPPED.values(), ids=SHIPPED)
def test_every_shipped_plan_finds_all_the_recipes_that_it_asks_for(plan: Plan, monkeypatch):
    if plan.images.name != "digits":
        pytest.importorskip("torchvision")
        classes = next(count for name, count in CLASSES.items() if name in plan.images.name)
        monkeypatch.setattr(
            "generate.run.prepare.load_images", lambda images, download: stand_in(images, classes)
        )
    prepared = survey(plan)
    trainings = with_identities(prepared.trainings, plan, prepared.costs, Place("ab", "images", "1x8x8"))
    assert len({training.subnetwork_id for training in trainings}) == len(trainings)
    held = Counter((training.block, training.target, training.technique) for training in trainings)
    for number, block in enumerate(plan.recipes):
        for target in block.regimes:
            for technique in block.retraining:
                # A recipe that an earlier block trains with seed 0 adds its other seeds only.
                recipes = block.count + len(block.baselines)
                assert recipes <= held[number, target, technique] <= recipes * block.seeds


def test_the_imagenet_plan_says_what_is_wrong_with_a_folder_of_other_classes(monkeypatch):
    pytest.importorskip("torchvision")
    plan = read_plan(DEFAULT_PLAN.parent / "imagenet-resnet50.toml")
    monkeypatch.setattr(
        "generate.run.prepare.load_images", lambda images, download: stand_in(images, classes=100)
    )
    with pytest.raises(PlanError, match=r"has 1000 outputs, but image-folder:~/imagenet has 100 classes"):
        survey(plan)
