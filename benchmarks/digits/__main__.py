"""What DTNH repairs when the source does not suit the task, and what it costs elsewhere.

Transfer between scikit-learn's 1797 handwritten digits, so that there is nothing to download:

    python -m benchmarks.digits

Per seed, a small network is pretrained on 800 images, gets a new head and is fine-tuned on 5 other
images per class; 700 more test it. The source is good (the images with their labels), has all
images turned by 90 degrees, or has its labels shuffled among all images, so that they say nothing.
In a fourth task the source is good, but 40 % of the target's labels, 10 per class, are redrawn.
Compared are fine-tuning with weight decay, L2-SP and KnowDist (distance of the last features), the
regularizers at three weights, without and with DTNH. The new head is masked out of both.

Expected, in points of test accuracy at weight 10, DTNH against none, 95 % intervals over 20 seeds
(all numbers: benchmarks/results/digits.json). KnowDist: +15.5 +- 1.9 with the rotated source and
+11.6 +- 1.3 with shuffled labels, both back at fine-tuning; -1.8 +- 0.4 with the good source; and
-17.2 +- 1.8 with noisy target labels, where fighting the training loss is the regularizer's job.
L2-SP: +12.9 +- 1.7 and +8.9 +- 1.0, still far below fine-tuning; +0.0 +- 0.2; -1.4 +- 0.4.
A second run gives the same numbers; jax 0.12 instead of 0.10 moves no mean by more than 0.1.
It takes 40 to 65 seconds on two CPU cores.
"""

from benchmarks.digits import command, data, methods
from benchmarks.digits.command import Benchmark
from benchmarks.digits.data import Source
from benchmarks.digits.experiment import Cell
from benchmarks.digits.methods import feature_pair, loss_gradient, without_and_with_dtnh
from benchmarks.digits.training import Pretraining
from optax_dtnh import add_l2_sp, dtnh

SAME = Source("same", data.keep)
ROTATED = Source("rot90", data.rotate)
SHUFFLED = Source("permlab", data.shuffle_labels)
CELLS = (
    Cell("same", "good source", SAME, shots=5, noise=0.0),
    Cell("rot90", "source rotated by 90°", ROTATED, shots=5, noise=0.0),
    Cell("permlab", "source with shuffled labels", SHUFFLED, shots=5, noise=0.0),
    Cell("noisy", "good source, noisy target labels", SAME, shots=10, noise=0.4),
)
RECIPE = methods.Recipe()
METHODS = (
    methods.fine_tuning(RECIPE),
    *without_and_with_dtnh("L2-SP", add_l2_sp, loss_gradient, RECIPE),
    *without_and_with_dtnh("KnowDist", dtnh, feature_pair, RECIPE),
)
BENCHMARK = Benchmark(
    name="digits",
    question="Does DTNH repair an inappropriate source, and what does it cost elsewhere?",
    cells=CELLS,
    methods=METHODS,
    weights=[0.1, 1.0, 10.0],
    pretraining=Pretraining(),
    recipe=RECIPE,
)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark, write the results and print them."""
    command.main(BENCHMARK, __doc__, argv)


if __name__ == "__main__":
    main()
