"""Our ResNets and ViTs compute what torch's do, with every checkpoint's names.

Random weights and BatchNorm statistics are put into the networks of torchvision, timm and
transformers, written to files by them, loaded here, and both networks run on the same images:

    make parity

Claimed of the worst difference, max |ours - torch's| / max |torch's| of every array:

- In evaluation mode in float32, logits and every feature map agree to 1e-5, and the gradients of a
  loss with respect to every parameter to 1e-4.
- In training mode in float64, logits, features, gradients and the running statistics after the
  step agree to 1e-9. (In float32 the few values that the last stage's BatchNorm sees at this size
  amplify rounding, in torch's network as much as in ours.)

ResNets have their full depth, and an eighth of their width where the library allows it; ViTs have
their 12 blocks at two attention heads. The exit code is 1 if a claim fails.

With `--source`, one real checkpoint is compared instead, a local file or a repository of the hub:

    python -m benchmarks.parity --source hf:OWNER/NAME --download

with transformers if its names are Hugging Face's, else with torchvision or timm.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.harness import record
from benchmarks.harness.options import OneLineParser
from benchmarks.parity.compare import MODES, Pair, batch_for, compare, seeded_pair
from benchmarks.parity.torch_models import LIBRARIES, library_of, loaded_reference, package
from optax_dtnh.models import (
    ViT,
    load_pretrained,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from optax_dtnh.models._checkpoint import open_checkpoint
from optax_dtnh.models._hub import hub_file
from optax_dtnh.models._names import SCHEMES

Row = dict[str, Any]
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "torchvision", "timm", "transformers")
NOTE = (
    "The worst relative difference, max |ours - torch's| / max |torch's| of an array, over the\n"
    "arrays of a kind. A ViT is the same in both modes, and has no running statistics."
)
COLUMNS = ("model", "names", "mode", "logits", "features", "gradients", "statistics")


class Case(NamedTuple):
    """A model, the key in `LIBRARIES` of its counterpart, and how ours is built."""

    model: str
    library: str
    build: Callable[..., Any]


NARROW = {
    "ResNet-18": resnet18,
    "ResNet-34": resnet34,
    "ResNet-50": resnet50,
    "ResNet-101": resnet101,
    "ResNet-152": resnet152,
}
CASES = (
    *(
        Case(name, "Hugging Face ResNet", functools.partial(build, width=8))
        for name, build in NARROW.items()
    ),
    Case("ResNet-18, full width", "torchvision ResNet", resnet18),
    Case("ResNet-50, full width", "timm ResNet", resnet50),
    *(
        Case("ViT, 12 blocks", library, functools.partial(ViT, 128, image_size=48))
        for library in ("torchvision ViT", "timm ViT", "Hugging Face ViT")
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return 1 if a claim fails."""
    parser = options()
    chosen = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    start = time.perf_counter()
    try:
        rows = list(of_source(chosen.source, chosen.download) if chosen.source else of_cases())
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    seconds = round(time.perf_counter() - start, 1)
    print(table(rows))
    write(chosen.out, rows, seconds)
    failures = missed(rows)
    print("\n".join(["", *failures]) if failures else "\nAll differences are within their bars.")
    return 1 if failures else 0


def options() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(
        prog="python -m benchmarks.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Callable[..., Any] = parser.add_argument
    add("--source", metavar="SOURCE", help="a checkpoint: a path, or hf:OWNER/NAME")
    add("--download", action="store_true", help="fetch it from the hub if it is not in the cache")
    out = Path("out/parity")
    add("--out", type=Path, default=out, metavar="DIR", help=f"folder (default: {out})")
    return parser


def of_cases() -> Iterator[Row]:
    """Yield the rows of the table on random weights."""
    for case in CASES:
        package(LIBRARIES[case.library].package)
    for case in CASES:
        compared = seeded_pair(LIBRARIES[case.library], case.build)
        yield from rows_of(case.model, case.library, compared)


def of_source(source: str, download: bool) -> Iterator[Row]:
    """Yield the rows of one checkpoint, a path or `hf:OWNER/NAME`."""
    path = local_path(source, download)
    model, file = load_pretrained(path), open_checkpoint(path)
    scheme = next(scheme for scheme in SCHEMES if scheme.known_by in file.tensors)
    library = library_of(scheme)
    package(library.package)
    config = None
    if library.package == "transformers":
        config = configuration(source, path, download)
    reference = loaded_reference(library, model, file.read(), config)
    name = source if source.startswith("hf:") else path.name
    yield from rows_of(name, scheme.name, Pair(reference, model, scheme))


def local_path(source: str, download: bool) -> Path:
    """Return the file of a source."""
    return hub_file(source, download=download) if source.startswith("hf:") else Path(source)


def configuration(source: str, path: Path, download: bool) -> Path | None:
    """Return the `config.json` beside the weights, None where there is none."""
    if source.startswith("hf:"):
        return hub_file("/".join([*source.split("/")[:2], "config.json"]), download=download)
    beside = path.parent / "config.json"
    return beside if beside.exists() else None


def rows_of(model: str, names: str, compared: Pair) -> Iterator[Row]:
    """Yield the worst differences of a pair in every mode."""
    for title, mode in MODES.items():
        if mode.train and isinstance(compared.model, ViT):
            continue  # the same in both modes
        found = compare(compared, batch_for(compared.model, mode), mode)
        yield {"model": model, "names": names, "mode": title, **found}


def missed(rows: Sequence[Row]) -> list[str]:
    """Return a line for every difference above its bar."""
    return [
        f"Not within its bar of {bar:g}: {row['model']}, {row['names']}, {row['mode']}: "
        f"{kind} differ by {row[kind]:.1e}."
        for row in rows
        for kind, bar in MODES[row["mode"]].bars.items()
        if row[kind] is not None and not row[kind] <= bar
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown, with aligned columns."""
    lines = [COLUMNS, *(tuple(_cell(row[column]) for column in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def write(out: Path, rows: Sequence[Row], seconds: float) -> None:
    """Write `parity.json` and `parity.md`."""
    environment = record.environment(PACKAGES)
    bars = {title: mode.bars for title, mode in MODES.items()}
    results = {"environment": environment, "seconds": seconds, "bars": bars, "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    record.write(out / "parity.json", results)
    (out / "parity.md").write_text(f"{table(rows)}\n\n{NOTE}\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
