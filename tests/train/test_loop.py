"""The loop by its parts, on made-up features: no audio, no encoder, little time.

One step is compared with the same step in plain torch; schedules with the lines of
the paper; and what the loop keeps, with validations that the test makes up.
"""

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from corpus import small_config
from torch import nn
from torch.nn import functional

from voxpanel.features.extract import Features
from voxpanel.features.fullband import DIM as N_BANDS
from voxpanel.features.melbank import Melbank
from voxpanel.features.moments import Moments
from voxpanel.model.network import Panel
from voxpanel.records import Rating
from voxpanel.train import loop
from voxpanel.train.loop import Progress, Trainer, has_task
from voxpanel.train.material import gather
from voxpanel.train.parallel import Group
from voxpanel.train.schedule import EarlyStop
from voxpanel.train.sources import FrozenSource
from voxpanel.train.validate import Validation

N_CLIPS = 12
PLAIN = {"dim": 6, "statistics": ["mean"], "fullband": False, "dropout": 0.0, "test_dropout": 0.0}
FLOAT32 = 1e-6  # sums of a few numbers near 1, in another order


def make_material(config, n_rated=8):
    """Return 12 clips of three synthesizers in two tests; every other one is in fold 0 or 1."""
    rows = [
        Rating(
            Path(f"{place}.wav"),
            place,
            score=1.0 + place % 4 if place < n_rated else None,
            test="quiet" if place % 3 else "loud",
            system="abc"[place % 3],
            synthesizer="abc"[place % 3] if place != 1 else None,
        )
        for place in range(N_CLIPS)
    ]
    return gather(rows, config)


def make_features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(N_CLIPS, 1, Melbank().dim, generator=generator)
    products = torch.rand(2, *mean.shape, generator=generator) + 0.5
    bands = torch.randn(N_CLIPS, N_BANDS, generator=generator)
    return Features(Moments(mean, *products), bands)


def make_trainer(folder, config, material=None, on_epoch=None):
    material = material or make_material(config)
    torch.manual_seed(0)
    panel = Panel(config, Melbank(), len(material.synthesizers), len(material.test_names))
    source = FrozenSource(make_features(), torch.device("cpu"))
    panel.fusion.fit(source.all)
    parts = nn.ModuleDict({"panel": panel})
    listener = on_epoch or (lambda _: None)
    return Trainer(config, material, 0, parts, source, Group(), folder / "state", listener)


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.trained.state_dict().items()}


@pytest.mark.parametrize("clip_norm", [10.0, 0.01])
def test_one_step_is_that_of_plain_torch(clip_norm, tmp_path):
    rows, number, n_steps = [0, 1, 5, 8, 11], 1, 4
    config = small_config(
        "joint",
        rate=0.01,
        fusion=PLAIN,
        mixture=None,
        losses={"beta": 0.5, "smoothing": 0.2, "test_weights": {"loud": 3.0}},
        optimizer={"clip_norm": clip_norm, "warmup": 0.5, "weight_decay": 0.1},
    )
    trainer = make_trainer(tmp_path, config)
    panel = copy.deepcopy(trainer.panel)
    trainer.trained.train()
    trainer.step(rows, number, n_steps)

    pooled = make_features().moments.mean[:, 0]
    x = ((pooled - pooled.mean(0)) / pooled.std(0, correction=0))[rows]
    tests = torch.tensor([1, 2, 2, 2, 2])  # "loud" is 1, "quiet" 2; clip 0 alone is in "loud"
    vector = x @ panel.fusion.project.weight.T + panel.fusion.project.bias
    vector = vector + panel.fusion.test.weight[tests]
    mos = 3.0 + vector @ panel.mos_head.weight[0] + panel.mos_head.bias[0]
    logits = vector @ panel.synthesizer_head.weight.T + panel.synthesizer_head.bias
    residual = (mos[:3] - torch.tensor([1.0, 2.0, 2.0])).abs()  # clips 8 and 11 are not rated
    each = torch.where(residual < 0.5, residual**2, residual - 0.25)
    mos_loss = (each * torch.tensor([3.0, 1.0, 1.0])).sum() / 5
    named = [0, 2, 3, 4]  # clip 1's synthesizer is not known
    classes = torch.tensor([0, 2, 2, 2])
    log_p = functional.log_softmax(logits[named], dim=1)
    wanted = 0.8 * functional.one_hot(classes, 3) + 0.2 / 3
    class_loss = -(wanted * log_p).sum(1).mean()
    at = number / (n_steps - 1)  # of the way from 0.3/0.7 to 0.7/0.3
    loss = (0.3 + 0.4 * at) * mos_loss + (0.7 - 0.4 * at) * class_loss

    names, parameters = zip(*panel.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    assert (norm > clip_norm) == (clip_norm == 0.01)
    factor = min(1.0, clip_norm / float(norm))
    rate = 0.01 * 2 / 3  # the second of two steps of warm-up, which ends at the third
    after = dict(trainer.panel.named_parameters())
    for name, before, gradient in zip(names, parameters, gradients, strict=True):
        decayed = before * (1 - rate * 0.1)
        if gradient is None:
            assert name == "fusion.layer_logits"  # the softmax of one layer has no gradient
            assert torch.allclose(after[name], decayed, atol=FLOAT32)
            continue
        clipped = gradient * factor
        assert torch.allclose(after[name].grad, clipped, rtol=1e-4, atol=FLOAT32), name
        # Adam's first step has the size of the rate, where rounding is not most of a gradient.
        expected = decayed - rate * clipped / (clipped.abs() + 1e-8)
        large = clipped.abs() > 10 * FLOAT32
        assert torch.allclose(after[name][large], expected[large], atol=1e-3 * rate), name


def test_a_listening_tests_weight_multiplies_the_loss_of_its_clips(tmp_path):
    """And the sum is divided by the weights, as if the clips were there as often."""
    found = {}
    for weight in (0.0, 1.0, 2.0, 5.0):
        config = small_config("ratings", losses={"test_weights": {"loud": weight}})
        trainer = make_trainer(tmp_path, config)
        trainer.trained.eval()
        trainer.step([0, 1, 2, 3], 0, 4)  # 0 and 3 are in "loud"
        found[weight] = trainer.progress.sums["mos"]
    quiet = found[0.0]  # two clips of either test
    loud = 2 * found[1.0] - quiet
    assert abs(loud - quiet) > 0.01
    assert found[2.0] == pytest.approx((2 * loud + quiet) / 3, rel=1e-5)
    assert found[5.0] == pytest.approx((5 * loud + quiet) / 6, rel=1e-5)


def test_clips_without_a_rating_do_not_move_the_mos_head(tmp_path):
    config = small_config("joint", optimizer={"weight_decay": 0.0})
    trainer = make_trainer(tmp_path, config)
    before = weights_of(trainer)
    trainer.trained.train()
    trainer.step([8, 9, 10, 11], 0, 4)
    after = weights_of(trainer)
    assert torch.equal(before["panel.mos_head.weight"], after["panel.mos_head.weight"])
    assert torch.equal(before["panel.mos_head.bias"], after["panel.mos_head.bias"])
    moved = "panel.synthesizer_head.weight"
    assert not torch.equal(before[moved], after[moved])
    assert trainer.progress.sums["mos"] == 0.0


def test_a_rating_of_weight_zero_does_not_count(tmp_path):
    config = small_config("ratings", losses={"test_weights": {"loud": 0.0}})
    trainer = make_trainer(tmp_path, config)
    trainer.trained.eval()
    trainer.step([0, 3, 6], 0, 4)  # all of them in "loud"
    assert trainer.progress.sums["mos"] == 0.0


def record_steps(monkeypatch, trainer):
    """Return a list that fills with what each step used: rates, weights, gradient norm."""
    seen = []
    optimizer_step, joint = torch.optim.AdamW.step, loop.losses.joint

    def spy_joint(mos, synthesizer, regulariser, weights):
        seen.append({"weights": weights})
        return joint(mos, synthesizer, regulariser, weights)

    def spy_step(optimizer):
        gradients = [weight.grad for weight in trainer.trained.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
        rates = [group["lr"] for group in optimizer.param_groups]
        seen[-1].update(norm=float(flat.norm()), rates=rates)
        return optimizer_step(optimizer)

    monkeypatch.setattr(loop.losses, "joint", spy_joint)
    monkeypatch.setattr(torch.optim.AdamW, "step", spy_step)
    return seen


def test_rates_and_task_weights_follow_their_schedules(monkeypatch, tmp_path):
    config = small_config(epochs=5, rate=0.01, optimizer={"batch_size": 2, "warmup": 0.2})
    trainer = make_trainer(tmp_path, config)
    seen = record_steps(monkeypatch, trainer)
    trainer.run()
    n_held = [int((trainer.material.folds == 0).sum())]
    assert n_held == [6]
    stages = {
        entry["stage"]: math.ceil(entry["n_train"] / 2) * 5 for entry in trainer.progress.history
    }
    assert len(stages) == 3
    ends = {"classes": [(0, 1), (0, 1)], "joint": [(0.3, 0.7), (0.7, 0.3)],
            "ratings": [(0.9, 0.1), (0.9, 0.1)]}  # fmt: skip
    steps = iter(seen)
    for name, n_steps in stages.items():
        own = list(itertools.islice(steps, n_steps))
        assert own[0]["weights"] == pytest.approx(ends[name][0])
        assert own[-1]["weights"] == pytest.approx(ends[name][1])
        n_warmup = round(0.2 * n_steps)
        for number, step in enumerate(own):
            rise = (number + 1) / (n_warmup + 1)
            fall = (1 + math.cos(math.pi * (number - n_warmup) / (n_steps - n_warmup))) / 2
            expected = 0.01 * (rise if number < n_warmup else fall)
            assert step["rates"] == pytest.approx([expected])
    assert next(steps, None) is None


def test_gradients_are_clipped(monkeypatch, tmp_path):
    config = small_config("joint", optimizer={"clip_norm": 0.05})
    trainer = make_trainer(tmp_path, config)
    seen = record_steps(monkeypatch, trainer)
    trainer.run()
    assert [step["norm"] for step in seen] == pytest.approx([0.05] * len(seen), rel=1e-3)


def scripted(monkeypatch, keys):
    """Make every epoch's validation say the next of these keys."""
    numbers = iter(keys)
    monkeypatch.setattr(
        Trainer, "validate", lambda *_: Validation((next(numbers),), None, None, math.nan, 0)
    )


@pytest.mark.parametrize(
    ("keys", "n_epochs", "kept"),
    [
        ([0.1, 0.5, 0.3, 0.4, 0.9], 4, 1),  # patience runs out before the fifth
        ([0.1, 0.2, 0.3, 0.4, 0.5], 5, 4),
        ([0.5, 0.5, 0.5], 3, 0),  # an equal one is no better
        ([0.5, 0.4, 0.6, 0.5, 0.4], 5, 2),
        ([math.nan] * 5, 5, 4),  # nothing to judge by: all epochs, the last weights
        ([math.nan, math.nan, 0.1, math.nan, math.nan], 5, 2),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_a_stage(
    keys, n_epochs, kept, monkeypatch, tmp_path
):
    stages = [{**small_config("joint", epochs=5).stages[0].model_dump(), "patience": 2}]
    config = small_config("joint").model_copy(
        update={"stages": small_config("joint", stages=stages).stages}
    )
    scripted(monkeypatch, keys)
    states = []
    trainer = make_trainer(tmp_path, config, on_epoch=lambda _: states.append(weights_of(trainer)))
    trainer.run()
    assert [entry["epoch"] for entry in trainer.progress.history] == list(range(n_epochs))
    final = weights_of(trainer)
    same = [all(torch.equal(final[name], state[name]) for name in final) for state in states]
    assert same.index(True) == kept


def worse_by_the_epoch(monkeypatch):
    """Make every epoch's scores further from the ratings than those of the one before."""
    epochs = itertools.count()

    def predict(_, __, material, rows):
        rated = torch.tensor(material.ratings[rows]).nan_to_num(3.0).double().numpy()
        return rated + 0.1 * next(epochs), torch.zeros(len(rows), 3).numpy()

    monkeypatch.setattr("voxpanel.train.validate.predict", predict)


@pytest.mark.parametrize(("metric", "kept"), [("last", 5), ("utterance_mse", 0)])
def test_the_last_epoch_is_kept_where_that_is_asked_for(metric, kept, monkeypatch, tmp_path):
    worse_by_the_epoch(monkeypatch)
    config = small_config("ratings", epochs=6, validation={"metric": metric})
    states = []
    trainer = make_trainer(tmp_path, config, on_epoch=lambda _: states.append(weights_of(trainer)))
    trainer.run()
    assert len(states) == 6
    found = [entry["dev_utterance_mse"] for entry in trainer.progress.history]
    assert found == pytest.approx([(0.1 * epoch) ** 2 for epoch in range(6)])
    final = weights_of(trainer)
    same = [all(torch.equal(final[name], state[name]) for name in final) for state in states]
    assert [epoch for epoch in range(6) if same[epoch]] == [kept]


def test_the_next_stage_goes_on_from_the_best_weights(monkeypatch, tmp_path):
    scripted(monkeypatch, [0.5, 0.1, 0.2, 0.3])
    config = small_config("joint", "ratings", rate=1e-12)  # a rate that moves nothing
    config = config.model_copy(
        update={"stages": (small_config("joint", rate=0.01).stages[0], config.stages[1])}
    )
    states = []
    trainer = make_trainer(tmp_path, config, on_epoch=lambda _: states.append(weights_of(trainer)))
    trainer.run()
    name = "panel.fusion.project.weight"
    assert torch.allclose(states[2][name], states[0][name], atol=1e-9)
    assert not torch.allclose(states[2][name], states[1][name], atol=1e-5)


def test_every_row_is_seen_once_an_epoch_in_another_order(monkeypatch, tmp_path):
    config = small_config("joint", epochs=3, optimizer={"batch_size": 5})
    trainer = make_trainer(tmp_path, config)
    batches = []
    monkeypatch.setattr(Trainer, "step", lambda _, *step: batches.append(step[:2]))
    trainer.run()
    rows, held = trainer.material.rows(config.stages[0], 0)
    epochs = [batches[i][0] + batches[i + 1][0] for i in (0, 2, 4)]
    assert [sorted(epoch) for epoch in epochs] == [rows] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert set(rows).isdisjoint(held)
    assert [number for _, number in batches] == list(range(6))


@pytest.mark.parametrize(
    ("stage", "n_synthesizers", "rows", "has"),
    [
        ("classes", 2, [0], True),
        ("classes", 1, [0], False),
        ("classes", 2, [], False),
        ("joint", 1, [0], True),
        ("ratings", 0, [0], True),
        ("ratings", 3, [], False),
    ],
)
def test_a_stage_needs_clips_and_two_classes_if_only_those_count(stage, n_synthesizers, rows, has):
    config = small_config(stage)
    names = ["a", "b"][:n_synthesizers]
    ratings = [Rating(Path(f"{i}.wav"), i, score=3.0) for i in range(2)]
    ratings += [Rating(Path(f"{name}.wav"), 5, synthesizer=name) for name in names]
    assert has_task(config.stages[0], gather(ratings, config), rows) is has


def test_dynamic_weights_follow_the_losses_of_two_epochs(tmp_path):
    config = small_config("joint", losses={"balance_tasks": "dynamic"})
    trainer = make_trainer(tmp_path, config)
    assert trainer.weights(0, 10) == pytest.approx((0.3, 0.7))
    trainer.progress.epoch_losses = [[1.0, 2.0]]
    assert trainer.weights(0, 10) == pytest.approx((0.3, 0.7))
    trainer.progress.epoch_losses = [[9.0, 9.0], [1.0, 2.0], [0.5, 1.8]]
    mos, synthesizer = trainer.weights(0, 10)
    assert mos / synthesizer == pytest.approx(math.exp((0.5 / 1.0 - 1.8 / 2.0) / 2))
    assert mos + synthesizer == pytest.approx(1.0)
    trainer.progress.epoch_losses = [[1.0, 0.0], [0.5, 0.0]]  # a task without a loss
    assert trainer.weights(0, 10) == pytest.approx((0.3, 0.7))


def test_learned_uncertainties_move_with_the_weights(tmp_path):
    config = small_config("joint", rate=0.01, losses={"balance_tasks": "uncertainty"})
    trainer = make_trainer(tmp_path, config)
    trainer.trained.train()
    before = weights_of(trainer)
    for number in range(3):
        trainer.step([0, 2, 4, 6], number, 6)
    # ds of the class's loss, exp(-s) L + s / 2 with L above 1 / 2, is below 0: s rises.
    assert trainer.task_balance.log_variances[1] > 0
    assert not torch.equal(before["panel.mos_head.weight"], trainer.panel.mos_head.weight)


def test_what_is_learned_is_summed_over_processes(tmp_path):
    """The uncertainties too: else each process would go on with its own."""
    summed = []

    class Spy(Group):
        def sum_gradients(self, parameters):
            summed.extend(parameters)

    config = small_config("joint", losses={"balance_tasks": "uncertainty"})
    trainer = make_trainer(tmp_path, config)
    trainer.group = Spy()
    trainer.step([0, 2, 4, 6], 0, 6)
    expected = [*trainer.panel.parameters(), trainer.task_balance.log_variances]
    assert list(map(id, summed)) == list(map(id, expected))


def test_the_contrastive_loss_adds_to_the_mos_loss(tmp_path):
    found = []
    for weight in (0.0, 0.5):
        losses = {"contrastive": weight, "margin": 0.0}
        config = small_config("ratings", fusion=PLAIN, mixture=None, losses=losses)
        trainer = make_trainer(tmp_path, config)
        trainer.trained.eval()
        output = trainer.panel(trainer.source([0, 2, 3]), torch.tensor([1, 2, 1]))
        trainer.step([0, 2, 3], 0, 4)
        found.append(trainer.progress.sums["mos"])
    error = output.mos.detach() - torch.tensor([1.0, 3.0, 4.0])
    pairs = [abs(float(error[i] - error[j])) / 2 for i in range(3) for j in range(3)]
    assert found[1] - found[0] == pytest.approx(0.5 * sum(pairs) / 9, rel=1e-5)


def test_the_logged_losses_are_means_over_an_epochs_batches(monkeypatch, tmp_path):
    config = small_config("joint", epochs=1, optimizer={"batch_size": 2})
    trainer = make_trainer(tmp_path, config)
    logged = []
    log = Trainer.log

    def spy(self, **parts):
        logged.append({name: part.item() for name, part in parts.items()})
        log(self, **parts)

    monkeypatch.setattr(Trainer, "log", spy)
    trainer.run()
    (entry,) = trainer.progress.history
    for name in ("mos", "synthesizer", "diversity", "entropy"):
        values = [parts[name] for parts in logged if name in parts]
        assert len(values) == 3
        assert entry[f"train_{name}"] == pytest.approx(sum(values) / 3, abs=1e-6)
    assert (entry["member"], entry["stage"], entry["n_train"]) == (0, "joint", 6)


def test_progress_survives_json():
    stop = EarlyStop(3).after((0.5, math.nan))
    progress = Progress(1, 2, 3, stop, {"mos": 0.1}, [[0.1, 0.2]], [{"epoch": 0}])
    assert Progress.from_record(json.loads(json.dumps(progress.record()))) == progress


def test_states_are_saved_at_most_a_twentieth_of_the_time(monkeypatch, tmp_path):
    clock = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    saved = []

    def slow_save(*_):
        saved.append(clock[0])
        clock[0] += 3.0

    monkeypatch.setattr(loop, "save_state", slow_save)
    trainer = make_trainer(tmp_path, small_config("joint"))
    for _ in range(200):
        clock[0] += 1.0
        trainer.save_if_due()
    assert saved[0] == 121.0  # more than 20 s after the start
    assert saved[1] == 124.0 + 61.0  # then more than 20 times the 3 s that saving takes


def test_the_encoder_has_its_own_rate_and_frozen_weights_none(tmp_path):
    config = small_config("joint", rate=0.01, backbone={"learning_rate_factor": 0.1})
    trainer = make_trainer(tmp_path, config)
    encoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    trainer.trained["backbone"] = encoder
    optimizer = trainer.build_optimizer()
    assert [group["peak"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.001])
    assert optimizer.param_groups[1]["params"] == list(encoder[0].parameters())
