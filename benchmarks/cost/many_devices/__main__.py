"""Does it stay cheap past one machine? A 7-billion-parameter training step, compiled, not run.

    python -m benchmarks.cost.many_devices
    python -m benchmarks.cost.many_devices --tpu v5e:8x8    # the record cost.many_devices.tpu

A decoder in the shapes of Llama-7B (6.7 billion float32 parameters in 12 leaves, its 32 layers
scanned and recomputed in the backward pass), 64 sequences of 2,048 tokens, lowered and compiled for
abstract parameters over 64 devices: virtual ones of this CPU, or with `--tpu` (and libtpu
installed) those of a TPU topology, by the compiler for TPU. No array is allocated, nothing is run,
so nothing here is a time of a step. Claims, on a mesh of 64 devices and on one of 16 x 4:

- The update alone, gradients given, adds all-reduces of scalars and nothing else: exactly one on
  the mesh of one axis (`scale_by_adam_dtnh`: two), and on that of two axes at most as many as XLA
  needs for one sum over these parameters, three (six). Decided per element, it adds nothing. The
  control, `jnp.vdot` by hand, gathers whole leaves on CPU.
- In the whole step, `add_l2_sp` gathers and multiplies exactly as the optimizer alone, and adds to
  what is reduced at most a kilobyte, and to memory the anchor.
- A pair of gradients costs at most 1.76 times the matrix products of one gradient of the sum (every
  layer is recomputed for each of the two), gathers 1.51 times the bytes and reduces 2.01 times.

Bytes are those of the results, on one device. The whole step is asserted for CPU alone. The virtual
devices take two minutes on two free CPU cores, the topology ten.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

import jax

from benchmarks.cost import report
from benchmarks.cost.many_devices import tables
from benchmarks.cost.many_devices.decoder import LLAMA_7B
from benchmarks.cost.many_devices.meshes import DEVICES, mesh_of, topology, use_virtual_devices
from benchmarks.cost.many_devices.steps import STEPS
from benchmarks.harness.command import Question, command, option
from benchmarks.harness.record import PACKAGES, Results
from benchmarks.harness.tables import Table

MESHES = ({"fsdp": 64}, {"fsdp": 16, "tensor": 4})
HELP = "Compile for a TPU, such as v5e:8x8."
OPTION = option("--tpu", metavar="TOPOLOGY", help=HELP)
ON_TPU = ("Adam", "add_l2_sp, Adam")  # each takes minutes to compile


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 1 if a claim fails."""
    given = sys.argv[1:] if argv is None else argv
    on_a_topology = any(word.startswith("--tpu") for word in given)
    return command(ON_A_TOPOLOGY if on_a_topology else QUESTION, argv)


def measure(options: Namespace) -> Results:
    """Return the results: what is compiled for, the sizes, and the tables."""
    use_virtual_devices()
    target = f"TPU {options.tpu}" if options.tpu else f"CPU, {DEVICES} virtual devices"
    measured = on_tpu(options.tpu) if options.tpu else on_cpu()
    return report.results(measured, **{"compiled for": target, "sizes": LLAMA_7B._asdict()})


def on_cpu() -> Iterator[Table]:
    """Yield the tables for the virtual devices."""
    meshes = [mesh_of(shape, jax.devices()) for shape in MESHES]
    for mesh in meshes:
        yield tables.update_table(mesh, LLAMA_7B, on_cpu=True)
    for mesh in meshes:
        yield tables.step_table(mesh, LLAMA_7B, STEPS, on_cpu=True)


def on_tpu(name: str) -> Iterator[Table]:
    """Yield the tables for the devices of a topology, which need not be there."""
    devices = topology(name)
    for shape in MESHES:
        yield tables.update_table(mesh_of(shape, devices), LLAMA_7B, on_cpu=False)
    chosen = {step: STEPS[step] for step in ON_TPU}
    yield tables.step_table(mesh_of(MESHES[0], devices), LLAMA_7B, chosen, on_cpu=False)


QUESTION = Question(
    "cost.many_devices",
    __doc__,
    measure,
    report.text,
    report.failures,
    options=OPTION,
)
ON_A_TOPOLOGY = QUESTION._replace(name="cost.many_devices.tpu", packages=(*PACKAGES, "libtpu"))

if __name__ == "__main__":
    sys.exit(main())
