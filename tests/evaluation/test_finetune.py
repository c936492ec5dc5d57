"""Fine-tuning: it learns, it is repeatable, it uses the labels that it may, and the encoder stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adainf.evaluation.finetune import finetune_hits, labelled_rows
from adainf.recipe import Finetune
from adainf.shards.loader.read_all import Labelled
from tests.evaluation.encoders import digest, make_encoder

CPU = torch.device("cpu")


def stripes(count: int, seed: int) -> Labelled:
    """Stripes along one axis or along the other, labels 2 and 5, under noise."""
    random = np.random.default_rng(seed)
    labels = random.choice([2, 5], count)
    upright = np.broadcast_to(np.arange(8) % 2 * 80, (8, 8))
    clean = np.where((labels == 2)[:, None, None], upright, upright.T)
    noisy = clean[..., None] + random.integers(0, 100, (count, 8, 8, 3))
    return Labelled(noisy.astype(np.uint8), labels)


TRAIN, TEST = stripes(96, 0), stripes(100, 1)


def test_it_learns_what_there_is_and_leaves_the_encoder_alone() -> None:
    encoder = make_encoder()
    before = digest(encoder)
    config = Finetune(epochs=3, learning_rate=0.05, batch=32)
    assert finetune_hits(encoder, TRAIN, TEST, config, 0, CPU).mean() > 0.95
    assert digest(encoder) == before
    shuffled = Labelled(TRAIN.images, np.random.default_rng(5).permutation(TRAIN.labels))
    assert finetune_hits(encoder, shuffled, TEST, config, 0, CPU).mean() < 0.85


@pytest.mark.heavy
def test_the_whole_network_is_trained_and_the_same_again() -> None:
    """Measured where a frozen network with a trained layer on top, or another seed, gives another result."""
    config = Finetune(epochs=2, learning_rate=0.02, batch=16, label_fraction=0.5)

    def accuracy(seed: int, frozen: bool = False) -> float:
        encoder = make_encoder()
        for parameter in encoder.parameters():
            parameter.requires_grad_(not frozen)
        return float(finetune_hits(encoder, TRAIN, stripes(1000, 2), config, seed, CPU).mean())

    first = [accuracy(seed) for seed in (0, 1)]
    assert first == [accuracy(seed) for seed in (0, 1)]
    assert first[0] != first[1]
    assert first[0] != accuracy(0, frozen=True)


@pytest.mark.parametrize(("fraction", "each"), [(1.0, (90, 10)), (0.1, (9, 1)), (0.01, (1, 1))])
def test_a_share_of_every_class_and_one_at_least(fraction: float, each: tuple[int, int]) -> None:
    labels = np.repeat([0, 7], [90, 10])
    rows = labelled_rows(labels, fraction, seed=0)
    assert tuple(int((labels[rows] == label).sum()) for label in (0, 7)) == each
    assert len(set(rows.tolist())) == len(rows)
    if fraction == 0.1:
        assert rows.tolist() != labelled_rows(labels, fraction, seed=1).tolist()


def test_labels_that_it_may_not_use_do_not_count() -> None:
    config = Finetune(epochs=1, batch=8, label_fraction=0.25)
    used = labelled_rows(TRAIN.labels, 0.25, 0)
    spoilt = np.zeros_like(TRAIN.images)
    spoilt[used] = TRAIN.images[used]
    one = finetune_hits(make_encoder(), TRAIN, TEST, config, 0, CPU)
    assert (one == finetune_hits(make_encoder(), Labelled(spoilt, TRAIN.labels), TEST, config, 0, CPU)).all()


def test_a_last_image_alone_is_no_crash() -> None:
    """Batch normalisation cannot train on one image."""
    finetune_hits(make_encoder(), stripes(33, 3), TEST, Finetune(epochs=1, batch=32), 0, CPU)
