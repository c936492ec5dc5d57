"""Everything that is measured of one encoder, together."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from adainf.evaluation.features import extract
from adainf.evaluation.protocol import SPLITS, can_evaluate, measure
from adainf.recipe import Evaluate, Finetune
from adainf.shards.loader.read_all import Labelled
from tests.evaluation.encoders import digest, make_encoder
from tests.evaluation.test_finetune import stripes

CPU = torch.device("cpu")
COUNTS = {"train": 120, "validation": 30, "test": 80}


def splits() -> dict[str, Labelled]:
    """Some images of each split have no label."""
    made = {name: stripes(count, seed) for seed, (name, count) in enumerate(COUNTS.items())}
    return {name: Labelled(images, np.where(np.arange(len(labels)) % 5, labels, -1)) for name, (images, labels) in made.items()}


def test_every_measure_is_there_on_the_labelled_test_images_and_the_encoder_is_untouched() -> None:
    encoder, data = make_encoder().train(), splits()
    before = digest(encoder)
    config = Evaluate(finetune=Finetune(epochs=1, batch=16), weighted_knn_neighbours=(20, 200))
    scores = measure(encoder, data, config, 4, CPU)
    assert digest(encoder) == before
    assert not encoder.training
    assert [one.protocol for one in scores.measures] == ["linear", "knn", "knn-weighted", "knn-weighted", "finetune"]
    assert {(one.split, one.seed, one.images) for one in scores.measures} == {("test", 4, 64)}
    assert [one.settings.get("neighbours") for one in scores.measures[1:4]] == [20, 20, 200]
    assert scores.measures[0].chosen.keys() == {"l2"}

    known = {name: data[name].labels >= 0 for name in SPLITS}
    train, test = (extract(encoder, data[name].images[known[name]], 512, CPU) for name in ("train", "test"))
    model = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(train, data["train"].labels[known["train"]])
    assert scores.first("knn").accuracy == model.score(test, data["test"].labels[known["test"]])


def test_the_solver_is_the_recipes_and_the_validation_split_is_the_one_that_chooses() -> None:
    chosen = measure(make_encoder(), splits(), Evaluate(linear="sgd", learning_rate_grid=(0.01,)), 0, CPU).measures[0]
    assert (chosen.settings, chosen.chosen) == ({"solver": "sgd"}, {"learning_rate": 0.01})


def test_without_labels_to_learn_or_to_judge_by_nothing_can_be_measured() -> None:
    data = splits()
    assert can_evaluate(data)
    one_class = Labelled(data["train"].images, np.where(data["train"].labels < 0, -1, 3))
    unlabelled = Labelled(data["test"].images, np.full(80, -1))
    assert not can_evaluate(data | {"train": one_class})
    assert not can_evaluate(data | {"test": unlabelled})
