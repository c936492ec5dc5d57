"""What moves beside the gradient: averages, temperatures, queue and centre, in closed form and in the right order."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from adainf.methods.method import cosine
from adainf.models.norm import SplitBatchNorm
from tests.methods.tiny import SETTINGS, global_views, tiny_method


def test_momenta_rise_as_byols_cosine() -> None:
    values = [cosine(0.99, 1.0, step, 101) for step in range(101)]
    assert values[0] == pytest.approx(0.99)
    assert values[50] == pytest.approx(0.995)
    assert values[100] == 1.0
    assert values == sorted(values)
    assert values[25] == pytest.approx(1 - (1 - 0.99) * (math.cos(math.pi * 0.25) + 1) / 2)
    assert cosine(0.5, 0.9, 0, 1) == 0.5


@pytest.mark.parametrize("name", ["moco", "byol", "dino"])
def test_a_teacher_moves_after_the_update_by_the_new_weights(name: str) -> None:
    method = tiny_method(name)
    method.before_step(0, 3)
    before = {key: value.clone() for key, value in method.teacher.named_parameters()}
    views, identities = global_views(name, 0)
    rows = method(views).rows
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    method.after_update([row.detach() for row in rows], identities)
    momentum = SETTINGS[name].momentum
    for key, value in method.teacher.named_parameters():
        new = dict(torch.nn.Sequential(method.backbone, method.projector).named_parameters())[key]
        torch.testing.assert_close(value, momentum * before[key] + (1 - momentum) * new, atol=1e-12, rtol=0)
        assert not value.requires_grad


def test_a_queue_takes_keys_after_the_loss_and_wraps_around() -> None:
    method = tiny_method("moco-sync")  # 50 places; each step brings 2 x 16
    start = method.queue.clone()
    keys = []
    for step in range(2):
        method.before_step(step, 10)
        views, identities = global_views("moco-sync", step)
        rows = method(views).rows
        method.loss(rows, identities)
        if step == 0:
            assert torch.equal(method.queue, start), "keys of a step would be negatives of their own partners"
        method.after_update(rows, identities)
        keys.append(F.normalize(torch.cat(rows[2:]), dim=1).detach())
    assert int(method.filled_to) == 64 % 50
    torch.testing.assert_close(method.queue[32:], keys[1][:18])
    torch.testing.assert_close(method.queue[:14], keys[1][18:])
    torch.testing.assert_close(method.queue[14:32], keys[0][14:])
    assert (method.queued[:14] >= 100).all()


def test_more_keys_than_places_leave_the_last_ones() -> None:
    method = tiny_method("moco-sync")
    views, identities = global_views("moco-sync", 0, batch=40)
    rows = method(views).rows
    method.after_update(rows, identities)
    expected = F.normalize(torch.cat(rows[2:]), dim=1)[-50:]
    torch.testing.assert_close(method.queue, expected)


def test_keys_are_shuffled_for_their_statistics_and_come_back_in_order() -> None:
    """Without batch normalisation the shuffle must not show; with split normalisation it must."""
    views, _ = global_views("moco", 0)
    method = tiny_method("moco")
    assert any(isinstance(layer, SplitBatchNorm) for layer in method.teacher.modules())
    shuffled = method(views).rows[2]
    method.shuffles = False
    assert not torch.allclose(method(views).rows[2], shuffled)
    plain = tiny_method("moco", norm=False)
    plain.shuffles = True
    torch.testing.assert_close(plain(views).rows[2], plain.teacher(views[0]))


def test_dino_warms_its_teacher_up_and_freezes_prototypes_first() -> None:
    method = tiny_method("dino")
    config = SETTINGS["dino"]
    seen = []
    for step in range(1000):
        method.before_step(step, 1000)
        seen.append((method.temperature, method.frozen))
    assert seen[0] == (config.teacher_temperature, True)
    assert seen[15][0] == pytest.approx((config.teacher_temperature + config.teacher_temperature_end) / 2)
    assert seen[30][0] == seen[999][0] == pytest.approx(config.teacher_temperature_end)
    assert [frozen for _, frozen in seen] == [True] * 10 + [False] * 990
    method.before_step(0, 1000)
    views, identities = global_views("dino", 0)
    method.loss(method(views).rows, identities).backward()
    assert method.projector[-1].weight.grad is not None
    method.before_update()
    assert method.projector[-1].weight.grad is None


def test_a_centre_is_the_average_of_the_teachers_logits() -> None:
    method = tiny_method("dino")
    views, identities = global_views("dino", 0)
    rows = method(views).rows
    assert len(rows) == 4 + 2
    method.after_update(rows, identities)
    torch.testing.assert_close(method.centre, 0.1 * torch.cat(rows[-2:]).mean(0))


def test_dinos_local_views_are_small_crops_for_the_student_only() -> None:
    from adainf.augment.profiles import default_views
    from adainf.recipe import Augmentation

    views = tiny_method("dino").views(default_views(Augmentation()))
    assert [(view.min_scale, view.max_scale, view.size_px) for view in views] == [(0.08, 1.0, None)] * 2 + [(0.08, 0.4, 6)] * 2
