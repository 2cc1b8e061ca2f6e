"""Batches: a pure function of the step, for any number of processes and workers."""

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import UsageError
from tests.core.helpers import assert_equal
from tests.finetune.pictures import AS_IS, encoded, folder, grays, names, photo
from tests.finetune.runs import settings


@pytest.fixture
def source(tmp_path):
    return open_data(folder(tmp_path, ant=7, cat=6), train_per_class=5, seed=0).train


def taken(source, count, **options):
    where = {name: options.pop(name) for name in ("start", "shard") if name in options}
    chosen = replace(settings(), **{"batch_size": 4, "seed": 3} | options)
    iterator = batches(source, AS_IS, chosen, **where)
    first = list(islice(iterator, count))
    iterator.close()
    return first


def shown(some):
    return np.concatenate([batch["image"][:, 0, 0, 0].round() for batch in some]).tolist()


def joined(shares):
    """The global batches of the shares of all processes."""
    steps = zip(*shares, strict=True)
    return [{k: np.concatenate([share[k] for share in step]) for k in step[0]} for step in steps]


def test_every_epoch_has_each_image_once_with_its_label_in_an_order_of_its_own(source):
    labels = {gray: source[i]["label"] for i, gray in enumerate(grays(source))}
    some = taken(source, 5)  # two epochs; the third batch has images of both
    order = shown(some)
    assert sorted(order[:10]) == sorted(order[10:]) == sorted(labels)
    assert order[:10] != order[10:]
    assert shown(taken(source, 5, seed=4)) != order
    assert np.concatenate([b["label"] for b in some]).tolist() == [labels[g] for g in order]


def test_a_source_smaller_than_a_batch_is_repeated_in_it(source):
    (batch,) = taken(source, 1, batch_size=25)
    counts = np.unique(batch["image"][:, 0, 0, 0].round(), return_counts=True)[1]
    assert sorted(counts.tolist()) == [2] * 5 + [3] * 5


def test_every_epoch_crops_an_image_anew():
    source = [{"image": encoded(photo((40, 40))), "label": 0, "name": "photo"}] * 2
    crops = {b["image"].tobytes() for b in taken(source, 12, batch_size=1)}
    assert len(crops) > 6


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_from_a_step_are_those_that_follow_it(source, workers):
    straight = taken(source, 9)
    assert_equal(taken(source, 5, start=4, workers=workers), straight[4:])
    assert (straight[0]["image"].dtype, straight[0]["label"].dtype) == ("float32", "int32")


@pytest.mark.parametrize(("processes", "start"), [(2, 0), (3, 4), (6, 1)])
def test_the_global_batch_of_a_step_is_the_same_for_any_number_of_processes(
    source, processes, start
):
    options = {"batch_size": 6, "start": start}
    whole = taken(source, 8 - start, **options)
    parts = [(process, processes) for process in range(processes)]
    shares = [taken(source, 8 - start, shard=part, **options) for part in parts]
    assert all(len(batch["label"]) == 6 // processes for share in shares for batch in share)
    assert_equal(joined(shares), whole)


@pytest.mark.parametrize("content", [0.5, 0, None])
def test_an_image_damaged_or_removed_after_the_check_is_named(source, content):
    path = Path(names(source)[2])
    whole = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(whole[: int(content * len(whole))])
    with pytest.raises(UsageError, match=re.escape(path.name)):
        taken(source, 3)
    with pytest.raises(UsageError, match=re.escape(path.name)):
        list(evaluation_batches(source, AS_IS, batch_size=4))


def test_a_mistake_of_ours_does_not_pass_for_a_damaged_image(source):
    with pytest.raises(KeyError, match="MAGIC"):
        list(evaluation_batches(source, AS_IS._replace(interpolation="magic"), batch_size=4))


def test_evaluation_takes_each_image_once_in_order(source):
    some = list(evaluation_batches(source, AS_IS, batch_size=4))
    assert [b["image"].shape for b in some] == [(n, 8, 8, 3) for n in (4, 4, 2)]
    assert (some[2]["image"].dtype, some[2]["label"].dtype) == (np.float32, np.int32)
    assert shown(some) == grays(source)
    assert some[2]["label"].tolist() == [source[i]["label"] for i in (8, 9)]
