"""The measures of predictions: by hand, in words, and as a figure."""

import io
import json
from math import log

import numpy as np
import pytest

from optax_dtnh.finetune.metrics import draw_confusion, in_words, matrix, measured


def certain(counts, names, probability=0.9):
    """The measures of predictions of one probability, with this confusion matrix."""
    labels, answers = np.repeat(np.argwhere(counts), np.array(counts)[np.nonzero(counts)], axis=0).T
    rest = (1 - probability) / (len(names) - 1)
    probabilities = np.full((len(labels), len(names)), rest)
    probabilities[np.arange(len(labels)), answers] = probability
    return measured(probabilities, labels, names)


CELLS = certain([[3, 7], [1, 59]], ["defective", "functional"])


def test_the_measures_of_four_images_by_hand():
    probabilities = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.7, 0.2, 0.1]]
    found = measured(np.array(probabilities), np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "images": 4,
        "accuracy": 0.75,
        # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.959964
        "accuracy_interval": pytest.approx([0.300642, 0.954413], abs=2e-6),
        "balanced_accuracy": 0.75,  # (1 + 1/2) / 2, without c
        "cross_entropy": pytest.approx(-log(0.5 * 0.8 * 0.2 * 0.7) / 4),
        "majority_class": "a",
        "majority_share": 0.5,
        "classes": {
            "a": {"support": 2, "recall": 1.0, "precision": pytest.approx(2 / 3)},
            "b": {"support": 2, "recall": 0.5, "precision": 1.0},
            "c": {"support": 0, "recall": None, "precision": None},
        },
        "confusion_matrix": {"a": {"a": 2}, "b": {"a": 1, "b": 1}},
    }


def test_certain_and_wrong_costs_much_and_is_finite():
    found = measured(np.array([[1.0, 0.0]]), np.array([1]), ["a", "b"])
    assert 30 < found["cross_entropy"] < 40
    assert found["balanced_accuracy"] == 0


def test_a_high_accuracy_that_finds_few_of_the_rare_class_says_so():
    assert in_words(CELLS) == [
        "Test accuracy 88.57% of 70 images. Its 95% interval is 79.0% to 94.1%.",
        "No better than the majority class, functional (85.7%).",
        "Balanced accuracy 64.2%. Cross-entropy 0.356.",
        "    class       support  recall  precision  as 1  as 2",
        " 1  defective        10   30.0%      75.0%     3     7",
        " 2  functional       60   98.3%      89.4%     1    59",
    ]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([[0, 10], [0, 60]], True),
        ([[5, 5], [0, 60]], True),  # 92.9 %, from 84.3 %
        ([[6, 4], [0, 60]], False),  # 94.3 %, from 86.2 %
        ([[0, 0], [10, 60]], False),  # one class alone has no majority
    ],
)
def test_the_majority_class_is_named_if_the_interval_reaches_down_to_it(counts, said):
    lines = in_words(certain(counts, ["a", "b"]))
    assert any(line.startswith("No better than the majority class") for line in lines) == said


def test_of_a_thousand_classes_those_of_lowest_recall_are_shown():
    names = [f"a name of a class that does not fit into a line {i}" for i in range(1000)]
    counts = np.diag(np.full(1000, 3))
    counts[7, [7, 8]] = 1, 2
    first, _, heads, lowest, *others = in_words(certain(counts, names))
    assert first.startswith("Test accuracy 99.93% of 3000 images.")
    assert heads == "    class                     support  recall  precision"
    assert lowest == " 1  a name of a class that..        3   33.3%     100.0%"
    assert len(others) == 9


NAMES = ["mono $x_1$", "a\nb", "caf\udce9", "\u5927"]
SHOWN = ["mono $x_1$", r"a\nb", r"caf\udce9", "\u5927"]


@pytest.mark.filterwarnings("ignore:Glyph")  # a font without Chinese draws a box
def test_the_figure_has_the_counts_and_names_of_any_kind():
    counts = [[3, 0, 0, 1], [0, 4, 0, 0], [0, 0, 5, 0], [2, 0, 0, 6]]
    found = certain(counts, NAMES)
    assert matrix(found).tolist() == counts
    figure = draw_confusion(found, "$100")
    (axes,) = figure.axes
    assert [x.get_text() for x in axes.texts] == list("314526")
    assert [x.get_text() for x in axes.get_yticklabels()] == SHOWN
    figure.savefig(io.BytesIO())


def test_the_figure_of_many_classes_has_no_names_and_no_counts():
    (axes,) = draw_confusion(certain(np.eye(150, dtype=int), [*map(str, range(150))])).axes
    assert [*axes.get_yticklabels(), *axes.texts] == []
