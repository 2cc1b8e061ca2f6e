"""Several processes train what one trains; when one dies the others stop, and the run goes on.

    python -m benchmarks.multi_process

The fine-tuning command runs on the digits as image files, from a source network that is trained
as in `benchmarks.digits_finetune`: in one process, and in 2 and 4 processes of one device each that
share the batch, data-parallel and FSDP, through `jax.distributed` on the loopback of this machine.
Claims, with L2-SP + DTNH and KnowDist + DTNH:

- The loss of every step is that of one process, up to the order in which float32 is summed. How
  far training carries such a difference on is measured: one process starts from the source
  with every weight moved to the next float32, away from 0. The loss of every step may differ by 10
  times the largest relative difference of that run, and by 1e-4 at most; and the largest difference
  is below the smallest between one step and the next, so a curve that is a step late is noticed.
- A process killed by SIGKILL, a worker or the coordinator (process 0), stops all others within
  60 s, with exit status 3 and, last, a line that names it.
- The same command goes on from the last checkpoint, and after both kills ends in the weights of
  the run that was left alone: their largest difference, relative to the largest weight of an array,
  is within the same bounds.

Seconds depend on the machine, but for the 30 s for which a process may be silent. The exit code is
1 if a claim fails. It takes 28 processes that compile, so 4 minutes on two idle cores.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.digits_finetune import IMAGES, train_source
from benchmarks.parts import options, record
from benchmarks.parts.options import OneLineParser
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
