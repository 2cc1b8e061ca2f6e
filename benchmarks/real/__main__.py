"""What decisions of DTNH change on a pretrained network and real photographs.

    python -m benchmarks.real                  # run it again to resume
    python -m benchmarks.real --budget 30      # stop after 30 minutes
    python -m benchmarks.real --smoke          # a small part, to see that it runs

The last stages of EfficientNet-Lite0, 1.0 of its 3.4 million parameters, are fine-tuned on 40
images of each of 4 classes of solar cells: 250 steps of SGD with momentum. They start from the
weights of ImageNet, or from these spoiled by shuffled labels. L2-SP and KnowDist act at the weight
that is best on ImageNet's weights and at ten times that, at rates that plain training on other
seeds has chosen; DTNH decides about the whole tree or about each element. Around the largest
weights one setting at a time is changed, see `cells.chosen`.

Runs are appended to real.jsonl in `--out`. They take about two hours on two cores; the earlier
stages run once, before. `python -m benchmarks.real.whole` trains all of the network.
"""

import sys

from benchmarks.harness.command import command
from benchmarks.real.material import Scale
from benchmarks.real.question import question

LAST = Scale(seeds=8, few=5, tuning=2, lanes=5, spoiling=3e-3)

QUESTION = question("real", __doc__, "stage7", LAST)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
