"""What decisions of DTNH change on a pretrained network, all of which is trained.

    python -m benchmarks.real.whole            # run it again to resume

As `python -m benchmarks.real`, with 15 seeds. Meant for one GPU; on CPU it takes days. Its first
runs are in benchmarks/results/real.whole.jsonl: to continue them, copy it to `--out`.
"""

import sys

from benchmarks.harness.command import command
from benchmarks.real.material import Scale
from benchmarks.real.question import question

WHOLE = Scale()

QUESTION = question("real.whole", __doc__, "stem", WHOLE)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
