"""The training loop, by arithmetic and by invariants."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet, Split
from generate.inputs.networks import build_network
from generate.plan import ImagesPlan, TrainingSettings
from generate.train.loop import (
    ADAMW_RATE,
    CLIPPED_NORM,
    RECALIBRATION_IMAGES,
    DivergenceError,
    Evaluation,
    _optimizer,
    check_learned,
    evaluate,
    fresh_weights,
    images_seen,
    is_transformer,
    learning_rates,
    peak_rate,
    recalibrate,
    train,
    training_epochs,
    training_steps,
)

CPU = torch.device("cpu")
# The accuracy per image, which a check of the whole does not look at.
EACH = torch.zeros(900)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_images(ImagesPlan(limit=100))


def small_network(digits: ImageSet) -> nn.Module:
    network = build_network("cifar_resnet8", classes=10, input_shape=digits.input_shape, width=0.25)
    fresh_weights(network, 0)
    return network


def two_points() -> ImageSet:
    """One white image of class 1, one black of class 0; normalised to +1 and -1."""
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    split = Split(images, torch.tensor([0, 1]))
    return ImageSet("points", split, split, split, 2, (0.5,), (0.5,))


def test_one_step_is_the_gradient_step_of_the_book():
    """Softmax regression on two points from zero weights: gradient of w is -1/2 for class 1, +1/2 for class 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    settings = TrainingSettings(
        epochs=1, batch_size=2, learning_rate=0.1, schedule="constant", momentum=0.0, weight_decay=0.0
    )
    train(network, two_points(), settings, macs=1, seed=0, device=CPU)
    torch.testing.assert_close(network[1].weight.detach().flatten(), torch.tensor([-0.05, 0.05]))
    torch.testing.assert_close(network[1].bias.detach(), torch.zeros(2))


def test_weight_decay_spares_vectors():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.ones_(network[1].bias)
    nn.init.ones_(network[1].weight)
    # Equal outputs and balanced classes: the data pull on nothing but the difference, so only decay moves the sum.
    settings = TrainingSettings(
        epochs=1, batch_size=2, learning_rate=0.1, schedule="constant", momentum=0.0, weight_decay=0.5
    )
    train(network, two_points(), settings, macs=1, seed=0, device=CPU)
    assert network[1].bias.sum().item() == pytest.approx(2.0)
    assert network[1].weight.sum().item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("one-cycle", [0.25, 0.75, 0.75, 0.25]),
        ("cosine", [0.25, 0.75, 0.5 + math.sqrt(0.125), 0.5 - math.sqrt(0.125)]),
        ("steps", [0.25, 0.75, 0.1, 0.01]),
    ],
)
def test_schedules(schedule, expected):
    settings = TrainingSettings(schedule=schedule, warm_up=0.5, learning_rate=2.0)
    assert learning_rates(settings, 4) == pytest.approx([2 * share for share in expected])


@pytest.mark.parametrize("batch_size", [25, 32, 64, 99])
def test_a_budget_in_macs_is_the_same_whatever_fills_no_batch(batch_size):
    """Of 100 images, batches of 64 leave 36 out in each epoch; the budget goes by images that are seen."""
    settings = TrainingSettings(training_macs=3e3 * 5000, batch_size=batch_size)
    assert images_seen(settings, macs=1000, images=100) == pytest.approx(5000, abs=batch_size / 2)
    by_epochs = TrainingSettings(epochs=50, batch_size=batch_size)
    assert training_steps(by_epochs, macs=1000, images=100) == 50 * (100 // batch_size)


def test_budgets_in_macs_give_narrow_networks_more_epochs():
    settings = TrainingSettings(training_macs=6e6)
    assert training_epochs(settings, macs=1000, images=100) == 20
    assert training_epochs(settings, macs=500, images=100) == 40
    assert (
        training_epochs(dataclasses.replace(settings, training_macs=None, epochs=7), macs=500, images=100)
        == 7
    )


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits):
    settings = TrainingSettings(epochs=1, batch_size=25, augmentation="flip+shift1+cutout2")
    states = []
    for seed in (1, 1, 2):
        network = small_network(digits)
        train(network, digits, settings, macs=1, seed=seed, device=CPU)
        states.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_nothing_global_is_touched(digits):
    network = small_network(digits)
    before = torch.random.get_rng_state()
    train(network, digits, TrainingSettings(epochs=0.5, batch_size=50), macs=1, seed=0, device=CPU)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_loss_that_is_no_number_is_a_divergence(digits):
    with pytest.raises(DivergenceError, match=r"the loss is (nan|inf)"):
        train(
            small_network(digits),
            digits,
            TrainingSettings(epochs=3, learning_rate=1e30),
            macs=1,
            seed=0,
            device=CPU,
        )


def test_guessing_is_a_divergence_and_the_threshold_is_chance_and_two_errors():
    threshold = 10 + 2 * 100 * math.sqrt(0.1 * 0.9 / 900)
    check_learned(Evaluation(threshold + 0.01, 2.3, 900, EACH), classes=10)
    with pytest.raises(DivergenceError, match=r"not above chance \(12\.00 %\)"):
        check_learned(Evaluation(threshold - 0.01, 2.3, 900, EACH), classes=10)
    with pytest.raises(DivergenceError, match="loss is nan"):
        check_learned(Evaluation(90.0, math.nan, 900, EACH), classes=10)


def test_accuracy_over_shifts_is_the_mean_of_the_accuracies_of_shifted_images(digits):
    network = small_network(digits)
    assert digits.test_shift == 1
    shifted = evaluate(network, digits, digits.validation, device=CPU)
    plain = evaluate(network, dataclasses.replace(digits, test_shift=0), digits.validation, device=CPU)
    assert shifted.n == plain.n == len(shifted.by_image) == 100
    assert shifted.by_image.mean() == pytest.approx(shifted.accuracy)
    # Accuracies are multiples of one image, and of one image in nine views.
    assert round(plain.accuracy * 1) == pytest.approx(plain.accuracy)
    assert round(shifted.accuracy * 9) == pytest.approx(shifted.accuracy * 9)


def test_recalibration_gives_the_statistics_of_the_training_images(digits):
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    recalibrate(network, digits, device=CPU)
    # Images are normalised by the training images' statistics, so batch norm must find mean 0 and variance 1.
    assert network[0].running_mean.item() == pytest.approx(0, abs=1e-5)
    assert network[0].running_var.item() == pytest.approx(1, abs=1e-3)
    assert network[0].momentum == 0.1


def test_fresh_weights_are_scaled_to_the_widths_of_the_network(digits):
    network = build_network("cifar_resnet8", classes=10, input_shape=digits.input_shape, width=2)
    fresh_weights(network, 3)
    weight = network.get_submodule("stage3.0.conv2").weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)


def test_recalibration_takes_evenly_spaced_images_of_a_large_set():
    """Darkest images first, as a set sorted by class may be: the first few thousand alone would have another mean."""
    count = 3 * RECALIBRATION_IMAGES + 5
    pixels = torch.linspace(0, 255, count).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    split = Split(pixels, torch.zeros(count, dtype=torch.int64))
    spread = float(pixels.double().std() / 255)
    images = ImageSet("ramp", split, split, split, 2, (float(pixels.double().mean() / 255),), (spread,))
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))
    recalibrate(network, images, device=CPU)
    assert network[0].running_mean.item() == pytest.approx(0, abs=0.01)
    assert network[0].running_var.item() == pytest.approx(1, abs=0.01)


def test_a_budget_in_macs_is_spent_by_a_training(digits):
    """Twice the MACs of a pass over 100 images, 3 x 1,000 x 100 x 2: two epochs of four steps of 25 images."""
    steps = []
    network = small_network(digits)
    network.register_forward_hook(lambda *_: steps.append(1))
    settings = TrainingSettings(epochs=99, training_macs=3 * 1000 * 100 * 2, batch_size=25)
    train(network, digits, settings, macs=1000, seed=0, device=CPU)
    assert len(steps) == 2 * 4


def small_transformer(digits: ImageSet) -> nn.Module:
    return build_network("digits_vit", classes=10, input_shape=digits.input_shape, width=1 / 3)


def test_adamw_trains_transformers_and_spares_norms_tokens_and_positions(digits):
    network = small_transformer(digits)
    optimizer = _optimizer(network, TrainingSettings(weight_decay=0.05), CPU)
    assert isinstance(optimizer, torch.optim.AdamW)
    decayed, spared = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    names = {name for name, p in network.named_parameters() if id(p) in decayed}
    assert "positions" not in names
    assert names == {n for n, p in network.named_parameters() if p.dim() > 1 and n != "positions"}
    assert len(decayed) + len(spared) == len(list(network.parameters()))


def test_a_rate_for_sgd_is_lowered_for_transformers_alone(digits):
    plain, vit = small_network(digits), small_transformer(digits)
    assert (is_transformer(plain), is_transformer(vit)) == (False, True)
    assert peak_rate(plain, TrainingSettings(learning_rate=0.1)) == 0.1
    assert peak_rate(vit, TrainingSettings(learning_rate=0.1)) == ADAMW_RATE
    assert peak_rate(vit, TrainingSettings(learning_rate=1e-4)) == 1e-4


def test_gradients_of_transformers_are_clipped(digits):
    network = small_transformer(digits)
    nn.init.normal_(network.classifier.weight, std=100.0)
    train(network, digits, TrainingSettings(epochs=1, batch_size=100), macs=1, seed=0, device=CPU)
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert float(norm) == pytest.approx(CLIPPED_NORM, rel=1e-3)


def test_fresh_weights_of_a_transformer_follow_the_seed_alone(digits):
    one, other = small_transformer(digits), small_transformer(digits)
    assert not torch.equal(one.positions, other.positions)
    fresh_weights(one, 3)
    fresh_weights(other, 3)
    for name, values in one.state_dict().items():
        assert torch.equal(values, other.state_dict()[name]), name
