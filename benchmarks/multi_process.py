"""Several processes train what one trains; when one dies the others stop, and the run goes on.

    python -m benchmarks.multi_process

The fine-tuning command runs on the digits as image files, from a source network that is trained
as in `benchmarks.paper.on_digits`: in one process, and in 2 and 4 processes of one device each that
share the batch, data-parallel and FSDP, through `jax.distributed` on the loopback of this machine.
Claims, with L2-SP + DTNH and KnowDist + DTNH:

- The first loss, before anything is trained, is that of one process up to 8 roundings of float32,
  9.5e-7 relative: its sums are over the same numbers in another order. Every later loss is within
  1e-3, and nearer than any two losses that follow each other, so a step too few would be noticed.
  Training carries the first difference on, by a factor of about 10 as long as gradients are
  smooth; where an activation lies at a kink, rounding decides on which side, and that gradient
  jumps. (KnowDist differs by 1e-6 for 30 steps, then by up to 1e-4, all runs of several processes
  alike: most likely such a kink, which was not traced.) For comparison, one process starts from
  the source with every weight moved to the next float32, away from 0.
- A process killed by SIGKILL, a worker or the coordinator (process 0), stops all others within
  60 s, with exit status 3 and, last, a line that names it.
- The same command goes on from the last checkpoint, and after both kills ends in the losses and
  weights of the run that was left alone, within 1e-3, the latter relative to the largest weight of
  an array. Whether they are the same bits is reported: on the machine of the results they are.

Seconds depend on the machine, but for the 30 s for which a process may be silent. The exit code is
1 if a claim fails. It takes 47 processes, most of which compile for 8 seconds: 18 minutes on two
cores that were busy otherwise.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import options, record
from benchmarks.harness.options import OneLineParser
from benchmarks.paper.on_digits import IMAGES, train_source
from benchmarks.processes_check import claims, curves, deaths

NAME = "multi_process"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain", "orbax-checkpoint")
ARGUMENTS = (
    *("--train-per-class", "10", "--steps", "60", "--batch-size", "32", "--log-every", "1"),
    *("--save-every", "10", *IMAGES),
)
# KnowDist at a weight at which it sometimes conflicts, and training is not chaotic.
KNOWDIST = ("--layers", "stage1", "stage2", "--weight", "0.001")
METHODS = {
    "L2-SP + DTNH": ("--method", "l2_sp+dtnh"),
    "KnowDist + DTNH": ("--method", "feature_distance+dtnh", *KNOWDIST),
}
FORMS = {"data-parallel": (), "FSDP": ("--fsdp",)}
COUNTS = (2, 4)
KILLED = {2: ("KnowDist + DTNH", "data-parallel"), 4: ("L2-SP + DTNH", "FSDP")}


def run(folder: Path) -> dict[str, Any]:
    """Return every number, from runs in the folder."""
    begin = time.perf_counter()
    accuracy = train_source(folder)
    argv = (*ARGUMENTS, "--data", str(folder / "images/target"))
    source = folder / "source/model.safetensors"
    moved = curves.moved(source, folder / "moved.safetensors")
    found: list[dict[str, Any]] = []
    for method, chosen in METHODS.items():
        case = curves.Case(folder, method, (*argv, *chosen), source, moved)
        found += curves.compared(case, COUNTS, FORMS)
    died: list[dict[str, Any]] = []
    for count, (method, form) in KILLED.items():
        chosen = (*argv, *METHODS[method], *FORMS[form])
        case = curves.Case(folder, method, chosen, source, moved)
        died += deaths.survived(case, count, form)
    return {
        "environment": record.environment(PACKAGES),
        "source_accuracy": accuracy,
        "arguments": list(ARGUMENTS),
        "seconds": round(time.perf_counter() - begin, 1),
        "curves": found,
        "deaths": died,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything, write the results, print them, and fail if a claim does not hold."""
    parser = OneLineParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out", NAME), metavar="DIR")
    chosen = parser.parse_args(argv)
    options.make_folder(parser, chosen.out)
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder))
    record.write(chosen.out / f"{NAME}.json", results)
    text = claims.markdown(results)
    (chosen.out / f"{NAME}.md").write_text(f"{text}\n")
    print(f"\n{text}\n\nWrote {NAME}.json and .md to {chosen.out}")
    if wrong := claims.failures(results):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
