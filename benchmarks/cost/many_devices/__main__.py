"""Does it stay cheap past one machine? A 7-billion-parameter training step, compiled, not run.

    python -m benchmarks.cost.many_devices [--out benchmarks/results/cost.many_devices.json]
    python -m benchmarks.cost.many_devices --tpu v5e:8x8 --out benchmarks/results/cost.many_devices.tpu.json

A decoder in the shapes of Llama-7B (6.7 billion float32 parameters in 12 leaves, its 32 layers
scanned and recomputed in the backward pass), 64 sequences of 2,048 tokens, lowered and compiled for
abstract parameters over 64 devices: virtual ones of this CPU, or with `--tpu` (and libtpu
installed) those of a TPU topology, by the compiler for TPU. No array is allocated, nothing is run,
so nothing here is a time of a step. Claims, on a mesh of 64 devices and on one of 16 x 4:

- The update alone, gradients given, adds all-reduces of scalars and nothing else: exactly one on
  the mesh of one axis (`scale_by_adam_dtnh`: two), and on that of two axes at most as many as XLA
  needs for one sum over these parameters, three (six). It reduces one cut dimension after the
  other, the last first: leaves cut as (fsdp, tensor) and as (tensor, fsdp) together take fsdp,
  tensor, fsdp. The control, `jnp.vdot` by hand, gathers whole leaves on CPU.
- In the whole step, `add_l2_sp` gathers and multiplies exactly as the optimizer alone, and adds to
  what is reduced at most a kilobyte, and to memory the anchor.
- A pair of gradients costs at most 1.76 times the matrix products of one gradient of the sum (every
  layer is recomputed for each of the two), gathers 1.51 times the bytes and reduces 2.01 times.
- The instructions of an update grow linearly in its leaves, up to 2,000, and do not grow with the
  parameters, up to 7 billion; the bytes accessed grow with the parameters alone.

Collectives and matrix products in a loop count as often as it runs; bytes are those of the results,
on one device. The whole step is asserted for CPU alone, growth on jax 0.12, as in
`benchmarks.cost`. The virtual devices take three minutes on two free CPU cores, the topology
ten. The exit code is 1 if a claim fails.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.cost.__main__ import text_of
from benchmarks.cost.many_devices import figure, growth, steps, tables, updates
from benchmarks.cost.many_devices.decoder import LLAMA_7B, Sizes
from benchmarks.cost.many_devices.meshes import mesh_of
from benchmarks.cost.many_devices.report import markdown
from benchmarks.cost.tables import Table
from benchmarks.harness.record import PACKAGES, environment

DEVICES = 64
MESHES = ({"fsdp": 64}, {"fsdp": 16, "tensor": 4})
ON_TPU = ("Adam", "add_l2_sp, Adam")  # each takes minutes to compile


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, write the record, and return 1 if a claim fails."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    measured = []
    for table in on_tpu(options.tpu) if options.tpu else on_cpu():
        print(f"\n{table.title}\n{text_of(table.rows)}", flush=True)
        measured.append(table)
    if options.out:
        write(options.out, options.tpu, measured)
    failures = [message for table in measured for message in table.failures]
    print("\n" + "\n".join(["Missed:", *failures] if failures else ["All asserted claims hold."]))
    return 1 if failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.many_devices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="compile for a TPU, such as v5e:8x8")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, tables and figure")
    return parser.parse_args(argv)


def on_cpu(sizes: Sizes = LLAMA_7B) -> Iterator[Table]:
    """Yield the tables for the virtual devices, and those of growth."""
    meshes = [mesh_of(shape, jax.devices()) for shape in MESHES]
    for mesh in meshes:
        yield tables.update_table(mesh, sizes, updates.UPDATES, on_cpu=True)
    for mesh in meshes:
        yield tables.step_table(mesh, sizes, steps.STEPS, on_cpu=True)
    for table in growth.TABLES:
        yield table(growth.CHOSEN)


def on_tpu(topology: str, sizes: Sizes = LLAMA_7B) -> Iterator[Table]:
    """Yield the tables for the devices of a topology, which need not be there."""
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(topology, "tpu").devices
    for shape in MESHES:
        yield tables.update_table(mesh_of(shape, devices), sizes, updates.UPDATES, on_cpu=False)
    chosen = {name: steps.STEPS[name] for name in ON_TPU}
    yield tables.step_table(mesh_of(MESHES[0], devices), sizes, chosen, on_cpu=False)


def write(path: Path, topology: str | None, measured: Sequence[Table]) -> None:
    """Write the record, its tables as Markdown, and the figure where growth was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "environment": environment((*PACKAGES, "libtpu") if topology else PACKAGES),
        "compiled for": f"TPU {topology}" if topology else f"CPU, {DEVICES} virtual devices",
        "sizes": LLAMA_7B._asdict(),
        "tables": [table._asdict() for table in measured],
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))
    growing = [table.rows for table in measured if "leaves" in table.rows[0]]
    if growing:
        by_parameters = next(t.rows for t in measured if "parameters" in t.rows[0])
        drawn = figure.draw(growing[0], by_parameters)
        drawn.savefig(path.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    # Before jax starts: the compiler for TPU would look for its machine on the network.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    sys.exit(main())
