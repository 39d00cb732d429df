import json
import math

import pytest
import torch

from voxpanel.errors import ConfigError, DataError
from voxpanel.train.schedule import (
    EarlyStop,
    UncertaintyWeights,
    dynamic_weights,
    learning_rate_factor,
    task_weights,
)


def test_the_learning_rate_is_worked_by_hand():
    # 4 of 12 steps warm up in strides of 1/5, then a cosine over 8 steps.
    factors = [learning_rate_factor(step, 12, 1 / 3) for step in range(13)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[6] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == 0


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.05, 0.5, 0.99])
def test_every_update_learns_and_the_peak_is_never_passed(n_steps, warmup_fraction):
    factors = [learning_rate_factor(step, n_steps, warmup_fraction) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_without_warm_up_the_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1)
    for step in range(10):
        factor = learning_rate_factor(step, 10, 0.0, final_fraction=0.1)
        assert factor == pytest.approx(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()


def test_beyond_the_last_step_the_rate_stays():
    assert learning_rate_factor(50, 10, 0.05, final_fraction=0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0.05), "n_steps is 0"),
        ((-1, 10, 0.05), "step is -1"),
        ((0, 10, 1.0), r"warmup_fraction is 1\.0; give 0 up to below 1"),
        ((0, 10, 0.05, 1.5), r"final_fraction is 1\.5; give 0 to 1"),
    ],
)
def test_a_learning_rate_out_of_range_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        learning_rate_factor(*arguments)


def test_the_second_stage_moves_from_the_class_to_mos():
    weights = [task_weights(step, 5, (0.3, 0.7), (0.7, 0.3)) for step in range(6)]
    assert weights[0] == (0.3, 0.7)
    assert weights[1] == pytest.approx((0.4, 0.6))
    assert weights[4] == weights[5] == (0.7, 0.3)


def test_a_stage_of_one_step_has_its_first_weights():
    assert task_weights(0, 1, (0.3, 0.7), (0.7, 0.3)) == (0.3, 0.7)


def test_dynamic_weights_are_worked_by_hand():
    # Ratios 1 and 0.5; over temperature 2 they differ by 1/4.
    weights = dynamic_weights([2.0, 1.0], [2.0, 2.0])
    first = 1 / (1 + math.exp(-0.25))
    assert weights == pytest.approx((first, 1 - first))


def test_dynamic_weights_survive_a_loss_that_explodes():
    assert dynamic_weights([1e6, 1.0], [1.0, 1.0]) == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("previous", "earlier", "message"),
    [
        ([1.0], [1.0, 2.0], "must pair up: got 1 and 2"),
        ([1.0, 1.0], [1.0, 0.0], r"task 1: a mean loss is 0\.0; expected above 0"),
        ([math.nan, 1.0], [1.0, 1.0], "task 0: a mean loss is nan"),
    ],
)
def test_losses_without_a_ratio_are_refused(previous, earlier, message):
    with pytest.raises(DataError, match=message):
        dynamic_weights(previous, earlier)


def test_dynamic_weights_need_a_temperature_above_zero():
    with pytest.raises(ConfigError, match="temperature is 0"):
        dynamic_weights([1.0], [1.0], temperature=0)


def test_uncertainty_weights_are_worked_by_hand():
    weights = UncertaintyWeights()
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([math.log(4), math.log(0.5)]))
    loss = weights(torch.tensor(2.0), torch.tensor(3.0))
    # L_mos / (2 * 4) + L_class / 0.5 + log(2) + log(sqrt(0.5)): sigma is the root of 4 and 0.5.
    assert loss.item() == pytest.approx(0.25 + 6 + math.log(2) + math.log(math.sqrt(0.5)))
    assert weights.task_weights() == pytest.approx((0.125, 2.0))


def test_learned_uncertainties_settle_where_their_gradient_vanishes():
    # d/ds of exp(-s) L / 2 + s / 2 is zero at s = log L; of exp(-s) L + s / 2 at log 2 L.
    weights = UncertaintyWeights()
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        weights(torch.tensor(0.3), torch.tensor(1.7)).backward()
        optimizer.step()
    assert weights.log_variances.tolist() == pytest.approx([math.log(0.3), math.log(3.4)], abs=1e-4)


def test_two_processes_count_the_constant_term_once():
    weights = UncertaintyWeights()
    torch.nn.init.constant_(weights.log_variances, 0.8)
    whole = weights(torch.tensor(2.0), torch.tensor(3.0))
    parts = [
        weights(torch.tensor(mos), torch.tensor(synthesizer), share=0.5)
        for mos, synthesizer in [(0.5, 1.0), (1.5, 2.0)]
    ]
    torch.testing.assert_close(sum(parts), whole)


def after_all(keys, patience=5):
    stop = EarlyStop(patience)
    for key in keys:
        stop = stop.after(key)
    return stop


def test_training_stops_after_five_epochs_without_improvement():
    improved = [(0.8, -0.2, 0.7)]
    assert not after_all(improved + 4 * [(0.7, -0.1, 0.9)]).should_stop
    assert after_all(improved + 5 * [(0.7, -0.1, 0.9)]).should_stop


def test_an_improvement_starts_the_count_again():
    stop = after_all([(0.1,), (0.0,), (0.0,), (0.2,), (0.1,)], patience=3)
    assert (stop.best, stop.n_without, stop.should_stop) == ((0.2,), 1, False)


@pytest.mark.parametrize(
    ("key", "improved"),
    [
        ((0.8, -0.1, 0.0), True),
        ((0.8, -0.2, 0.8), True),
        ((0.8, -0.2, 0.7), False),
        ((0.8, -0.3, 0.9), False),
        ((0.81, -9.0, 0.0), True),
        ((math.nan, -0.1, 0.9), False),
    ],
)
def test_keys_are_compared_from_their_first_number_on(key, improved):
    assert after_all([(0.8, -0.2, 0.7), key]).improved == improved


def test_a_first_epoch_that_is_undefined_can_be_improved_on():
    assert after_all([(math.nan, -0.5)]).best == (None, -0.5)
    assert after_all([(math.nan, -0.5), (-0.9, -0.6)]).improved
    assert after_all([(math.nan, -0.5), (math.nan, -0.4)]).improved


def test_before_the_first_epoch_nothing_improved():
    assert not EarlyStop().improved
    assert not EarlyStop().should_stop


def test_the_state_survives_strict_json():
    stop = after_all([(math.nan, 0.1, -0.123456789), (math.nan, 0.0, 0.0)], patience=3)
    text = json.dumps(stop.state(), allow_nan=False)
    assert EarlyStop.from_state(json.loads(text)) == stop
    assert EarlyStop.from_state(json.loads(json.dumps(EarlyStop().state()))) == EarlyStop()
