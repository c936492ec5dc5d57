"""The trainer on a real stream: resuming is bitwise on any number of processes; metrics, alarms and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from adainf import recipe
from adainf.augment.profiles import default_views
from adainf.errors import StageFailed
from adainf.methods.clip import tokens_of
from adainf.models.encoder import Normalisation
from adainf.pipeline.serialization import decode, encode
from adainf.pretraining import monitor
from adainf.pretraining.loop import make_accelerator
from adainf.pretraining.online import OnlineProbe, accuracy_in_eval_mode
from adainf.pretraining.trainer import Experiment, Step, Trainer
from adainf.runtime.distributed import rank, world_size
from adainf.shards import Companions, Source, open_stream
from tests.processes import run_on_ranks
from tests.shards.sets import make_set

METHODS: dict[str, dict[str, Any]] = {
    "simclr": {"projector_hidden": 16, "projector_out": 8},
    "moco": {"projector_hidden": 16, "projector_out": 8, "queue": 64, "norm_splits": 4},
    "byol": {"projector_hidden": 16, "projector_out": 8, "predictor_hidden": 16},
    "simsiam": {"projector_hidden": 16, "projector_out": 8, "predictor_hidden": 4},
    "barlow": {"projector_hidden": 16, "projector_out": 8},
    "vicreg": {"projector_hidden": 16, "projector_out": 8},
    "spectral": {"projector_hidden": 16, "projector_out": 8},
    "dino": {"projector_hidden": 16, "bottleneck": 8, "prototypes": 32, "local_crops": 2, "local_size_px": 5},
    "clip": {"projector_out": 8, "text_width": 16, "text_layers": 1, "text_heads": 2, "text_bytes": 8},
}
IMAGES, BATCH = 96, 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_set(str(tmp_path_factory.mktemp("set") / "real"), IMAGES, 32, size_px=8).uri


def config(name: str, steps: int, **settings: Any) -> recipe.Pretrain:
    given = {
        "method": {"kind": name, **METHODS[name]},
        "backbone": {"name": "resnet-small"},
        "optimizer": {"kind": "sgd", "learning_rate": 0.05},
        "global_batch": BATCH,
        "steps": steps,
        "warmup_fraction": 0.2,
    }
    return recipe.Pretrain.model_validate(given | settings)


def train(data: str, settings: recipe.Pretrain, saved: bytes | None, until: int) -> tuple[bytes, list[float]]:
    """Train from `saved` (or the start) to step `until`: the state there, as a file, and the losses on the way."""
    losses = []
    captions = tokens_of([f"image {number}" for number in range(IMAGES)], 8)
    tokens = [captions] if settings.method.kind == "clip" else []
    with open_stream({"real": Source(data)}, settings.global_batch, 7, rank=rank(), world=world_size()) as stream:
        views, normalisation = default_views(settings.augmentation), Normalisation((0.5,) * 3, (0.25,) * 3)
        experiment = Experiment(settings, 7, stream, views, normalisation, tokens)
        trainer = Trainer(experiment, make_accelerator(settings))
        start = 0
        if saved is not None:
            tensors, extra = decode(saved, "saved")
            trainer.restore(tensors, None)
            start = trainer.batches.load_state_dict(extra)
        for step in range(start, until):
            losses.append(float(trainer.step(step).loss))
        return encode(trainer.state()[0], stream.state_at(until)), losses


@pytest.mark.parametrize(("name", "kind"), [*((name, "lars") for name in METHODS), ("simclr", "adamw"), ("dino", "adamw")])
def test_stopped_and_gone_on_is_bit_for_bit_the_run_that_was_not(data: str, name: str, kind: str) -> None:
    """Weights, optimiser, teacher, queue, centre, schedules, images and views: all that a step depends on was saved."""
    optimizer = {"kind": kind, "learning_rate": 0.01, "weight_decay_end": 0.1, "gradient_clip": 0.5}
    settings = config(name, 6, optimizer=optimizer)
    uninterrupted, losses = train(data, settings, None, 6)
    half, first = train(data, settings, None, 3)
    again, second = train(data, settings, half, 6)
    assert first + second == losses
    assert again == uninterrupted


def on_ranks(data: str, name: str, saved: bytes | None, until: int) -> tuple[bytes, list[float]]:
    assert Accelerator().num_processes == world_size()
    return train(data, calm(name), saved, until)


def calm(name: str) -> recipe.Pretrain:
    """A low rate: at a high one, what differs in the last bit grows tenfold a step. And group normalisation: torch's batch
    normalisation of channels-last maps rounds thirty times as coarsely, by the number of threads."""
    backbone = {"name": "resnet-small", "norm": "group"}
    return config(name, 6, optimizer={"kind": "sgd", "learning_rate": 0.002}, backbone=backbone)


@pytest.mark.parametrize("name", ["simclr", "moco", "dino"])
def test_two_processes_go_on_as_four_and_end_as_one(data: str, name: str) -> None:
    halves = run_on_ranks(2, on_ranks, data, name, None, 3)
    assert halves[0][0] == halves[1][0], "rank 0 saves what all hold"
    ends = run_on_ranks(4, on_ranks, data, name, halves[0][0], 6)
    uninterrupted, losses = train(data, calm(name), None, 6)
    expected, found = decode(uninterrupted, "one")[0], decode(ends[0][0], "four")[0]
    for key, value in expected.items():
        if key.startswith("model."):  # float32 sums in another order; in velocities they stand out more
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    assert np.mean([each for _, each in halves], axis=0) == pytest.approx(losses[:3], abs=1e-4)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_it_trains_the_same_within_tolerance(data: str, precision: str) -> None:
    _, expected = train(data, config("simclr", 6, precision=precision), None, 4)
    AcceleratorState._reset_state(True)
    _, found = train(data, config("simclr", 6, precision=precision, compile=True), None, 4)
    AcceleratorState._reset_state(True)
    assert found == pytest.approx(expected, abs=1e-3 if precision == "no" else 0.05)


def test_views_do_not_depend_on_who_else_is_in_the_batch(data: str) -> None:
    """The same image at the same step has the same views whatever the batch; so the first loss is a function of the images."""
    seen: list[Tensor] = []
    for batch in (8, 16):
        settings = config("simclr", 4, global_batch=batch)
        with open_stream({"real": Source(data)}, batch, 7) as stream:
            experiment = Experiment(
                settings, 7, stream, default_views(settings.augmentation), Normalisation((0,) * 3, (1,) * 3)
            )
            trainer = Trainer(experiment, Accelerator())
            got = next(trainer.batches)
            identities = torch.from_numpy(got.indices)
            seen.append(trainer._views(0, got, identities)[0][:8])
    torch.testing.assert_close(seen[0], seen[1], atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------------ metrics and alarms


def test_rank_and_spread_tell_directions_from_a_point() -> None:
    generator = torch.Generator().manual_seed(0)
    around = torch.randn(4000, 16, generator=generator)
    assert monitor.rank_me(around) == pytest.approx(16, rel=0.02)
    assert monitor.rank_me(around[:, :1] @ torch.ones(1, 16)) == pytest.approx(1, abs=0.01)
    assert monitor.spread(around) == pytest.approx(1, abs=0.01)
    assert monitor.spread(torch.ones(10, 4) + 1e-6 * around[:10, :4]) < 1e-5


def test_alignment_and_uniformity_are_the_papers_loops() -> None:
    z1, z2 = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1)).unbind()
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (z1, z2))
    assert monitor.alignment(z1, z2) == pytest.approx(float(((a - b).norm(dim=1) ** 2).mean()), abs=1e-6)
    pairs = [float(torch.exp(-2 * (a[i] - a[j]).norm() ** 2)) for i in range(9) for j in range(i)]
    assert monitor.uniformity(z1) == pytest.approx(float(np.log(np.mean(pairs))), abs=1e-6)


def watched(data: str, **settings: Any) -> tuple[Trainer, Step, Any]:
    given = config("simclr", 20, **settings)
    stream = open_stream({"real": Source(data)}, BATCH, 7)
    experiment = Experiment(given, 7, stream, default_views(given.augmentation), Normalisation((0.5,) * 3, (0.25,) * 3))
    trainer = Trainer(experiment, Accelerator())
    return trainer, trainer.step(0), stream


def test_what_is_logged_is_true(data: str) -> None:
    trainer, step, stream = watched(data)
    watcher = monitor.Monitor(trainer, "test", None, True)
    watcher.observe(step)
    measured = watcher.measure(12, step)
    assert measured["loss"] == pytest.approx(float(step.loss), abs=1e-6)
    assert (measured["real_images"], measured["generated_images"], measured["beta"]) == (12 * BATCH, 0, 1.0)
    assert measured["passes_per_real_image"] == 12 * BATCH / IMAGES
    parts = [measured[name] for name in ("data_wait_pct", "augment_pct", "model_pct")]
    assert all(part > 0 for part in parts)
    assert 50 < sum(parts) <= 100.001
    assert measured["images_per_s"] == pytest.approx(BATCH * 1000 / measured["step_ms"])
    stream.close()


def test_a_collapse_is_reported_with_its_likely_cause_after_three_log_steps(data: str) -> None:
    trainer, step, stream = watched(data)
    watcher = monitor.Monitor(trainer, "pretrain none", None, True)
    same = step._replace(embedded=step.embedded._replace(features_bD=torch.ones(BATCH, 128)))
    watcher.measure(1, same)
    watcher.measure(2, same)
    watcher.measure(3, step)  # a good one resets the count
    watcher.measure(4, same)
    watcher.measure(5, same)
    with pytest.raises(StageFailed, match="pretrain none: the encoder collapsed at step 6: all images have nearly the same"):
        watcher.measure(6, same)
    stream.close()


def test_a_loss_that_is_no_number_names_its_cure(data: str) -> None:
    trainer, step, stream = watched(data)
    lost = step._replace(loss=torch.tensor(float("nan")))
    with pytest.raises(StageFailed, match=r"the loss is nan at step 3; lower pretrain\.optimizer"):
        monitor.checked_loss(3, lost, trainer, "pretrain none")
    stream.close()


def test_the_online_probe_learns_labels_and_ignores_images_without() -> None:
    generator = torch.Generator().manual_seed(0)
    probe = OnlineProbe(8, 3, torch.device("cpu"))
    centres = 3 * torch.randn(3, 8, generator=generator)
    probe.update(torch.randn(16, 8, generator=generator), torch.full((16,), -1))
    assert probe.read() == {}
    start = [parameter.clone() for parameter in probe._linear.parameters()]
    probe.update(torch.randn(16, 8, generator=generator), torch.full((16,), -1))
    for before, after in zip(start, probe._linear.parameters(), strict=True):
        assert torch.equal(before, after), "a batch without labels must change nothing"
    for _ in range(60):
        labels = torch.randint(0, 3, (32,), generator=generator)
        labels[::2] = -1
        features = centres[labels.clamp(min=0)] + 0.3 * torch.randn(32, 8, generator=generator)
        probe.update(features, labels)
    probe.read()
    probe.update(centres, torch.arange(3))
    measured = probe.read()
    assert measured["probe_accuracy"] == 1.0
    assert 0 < measured["probe_loss"] < 0.1


def test_validation_does_not_change_the_encoder(data: str) -> None:
    trainer, _, stream = watched(data)
    before = encode(trainer.method.state_dict(), None)
    finite = accuracy_in_eval_mode(trainer.method.backbone, lambda net: float(net(torch.rand(4, 3, 8, 8)).isfinite().all()))
    assert finite == 1.0
    assert encode(trainer.method.state_dict(), None) == before
    assert trainer.method.backbone.training
    stream.close()


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(data: str, tmp_path: Path) -> None:
    from adainf.errors import BadInput

    trainer, step, stream = watched(data, monitor={"tensorboard": str(tmp_path)})
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(BadInput, match="pip install tensorboard"):
            monitor.Monitor(trainer, "test", None, True)
    else:
        watcher = monitor.Monitor(trainer, "test", None, True)
        watcher.write(1, watcher.measure(1, step))
        watcher.close()
        assert list(tmp_path.glob("events.*"))
    stream.close()


@pytest.mark.parametrize("use", [recipe.Replace(kind="replace"), recipe.Add(kind="add"), None])
def test_generated_positives_enter_only_the_view_that_they_replace_and_resume_bit_for_bit(data: str, use: Any) -> None:
    """None: a control without companions, by which the other views are compared. Copies of the images are the candidates."""
    companions = Companions(data, "real", 0.5 if isinstance(use, recipe.Replace) else 1.0, random=True)
    settings = config("simclr", 4)

    def opened() -> Any:
        return open_stream({"real": Source(data)}, BATCH, 7, companions=companions if use else None)

    def trainer(stream: Any) -> Trainer:
        views, normalisation = default_views(settings.augmentation), Normalisation((0.5,) * 3, (0.25,) * 3)
        return Trainer(Experiment(settings, 7, stream, views, normalisation, positives=use), make_accelerator(settings))

    with opened() as stream, opened() as again:
        one = trainer(stream)
        losses = [float(one.step(step).loss) for step in range(2)]
        saved, position = {key: value.clone() for key, value in one.state()[0].items()}, stream.state_at(2)
        losses += [float(one.step(step).loss) for step in range(2, 4)]
        two = trainer(again)
        two.restore(saved, None)
        assert [float(two.step(step).loss) for step in range(two.batches.load_state_dict(position), 4)] == losses[2:]
    if use is None:
        return
    with opened() as stream, open_stream({"real": Source(data)}, BATCH, 7) as plain:
        batch, other = next(trainer(stream).batches), next(trainer(plain).batches)
        identities = torch.arange(BATCH)
        ours = trainer(stream)._views(0, batch, identities)
        own = trainer(plain)._views(0, other, identities)
        assert batch.companions is not None
        replaced = torch.isin(torch.arange(BATCH), batch.companions.rows)
        assert torch.equal(ours[0], own[0])
        if isinstance(use, recipe.Add):
            assert torch.equal(ours[1], own[1])
            assert ours[3].tolist() == [1.0] * BATCH
        else:
            assert 0 < replaced.sum() < BATCH
            assert torch.equal(ours[1][~replaced], own[1][~replaced])
            assert (ours[1][replaced] != own[1][replaced]).any((1, 2, 3)).all()
