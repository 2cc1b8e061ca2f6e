"""Our ResNets and ViTs compute what torch's do, with every checkpoint's names.

    make parity

Random weights and BatchNorm statistics are put into the networks of torchvision, timm and
transformers, which write them to files. Ours load the files, and both run on the same images.
ResNets have their full depth, and an eighth of their width where the library allows it; ViTs have
their 12 blocks at two attention heads.

Claims about the worst difference, max |ours - torch's| / max |torch's| of every array:

- In evaluation mode in float32, logits and every feature map agree to 1e-5, and the gradients of a
  loss with respect to every parameter to 1e-4.
- In training mode in float64, logits, features, gradients and the running statistics after the
  step agree to 1e-9. (In float32 the last stage's BatchNorm has few values at this size and
  amplifies rounding, in torch's network as much as in ours.)

With `--source`, one real checkpoint is compared instead, a local file or a repository of the hub:

    python -m benchmarks.parity --source hf:OWNER/NAME --download

It is compared with transformers if its names are Hugging Face's, else with torchvision or timm.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.harness.command import Question, command
from benchmarks.harness.tables import markdown
from benchmarks.parity.compare import MODES, Pair, batch_for, compare, seeded_pair
from benchmarks.parity.torch_models import LIBRARIES, library_of, loaded_reference, package
from optax_dtnh import models
from optax_dtnh.finetune.errors import usage_errors
from optax_dtnh.models import CheckpointError, EfficientNetLite0, ViT, load_pretrained
from optax_dtnh.models._checkpoint import open_checkpoint
from optax_dtnh.models._hub import hub_file
from optax_dtnh.models._names import recognized

Row = dict[str, Any]
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "torchvision", "timm", "transformers")
NOTE = """
The worst relative difference, max |ours - torch's| / max |torch's| of an array, over the
arrays of a kind. A ViT is the same in both modes, and has no running statistics."""


class Case(NamedTuple):
    """A model, the key in `LIBRARIES` of its counterpart, and how ours is built."""

    model: str
    library: str
    build: Callable[..., Any]


NARROW = (18, 34, 50, 101, 152)
CASES = (
    *(
        Case(f"ResNet-{n}", "Hugging Face ResNet", partial(getattr(models, f"resnet{n}"), width=8))
        for n in NARROW
    ),
    Case("ResNet-18, full width", "torchvision ResNet", models.resnet18),
    Case("ResNet-50, full width", "timm ResNet", models.resnet50),
    *(
        Case("ViT, 12 blocks", library, partial(ViT, 128, image_size=48))
        for library in ("torchvision ViT", "timm ViT", "Hugging Face ViT")
    ),
)


def add_options(parser: ArgumentParser) -> None:
    """Add `--source` and `--download`."""
    source = "Compare this checkpoint instead: a file, or hf:OWNER/NAME."
    parser.add_argument("--source", metavar="SOURCE", help=source)
    download = "Fetch the checkpoint from the hub if it is not in the cache."
    parser.add_argument("--download", action="store_true", help=download)


def measure(options: Namespace) -> dict[str, Any]:
    """Return the bars and a row for every model and mode."""
    jax.config.update("jax_platforms", "cpu")
    source, download = options.source, options.download
    return {
        "bars": {title: mode.bars for title, mode in MODES.items()},
        "rows": list(of_source(source, download) if source else of_cases()),
    }


def of_cases() -> Iterator[Row]:
    """Yield the rows of the table on random weights."""
    for case in CASES:
        package(LIBRARIES[case.library].package)
    for case in CASES:
        compared = seeded_pair(LIBRARIES[case.library], case.build)
        yield from rows_of(case.model, case.library, compared)


def of_source(source: str, download: bool) -> Iterator[Row]:
    """Yield the rows of one checkpoint, a path or `hf:OWNER/NAME`."""
    on_hub = source.startswith("hf:")
    with usage_errors(CheckpointError, OSError, ImportError):
        path = hub_file(source, download=download) if on_hub else Path(source)
        model, file = load_pretrained(path), open_checkpoint(path)
        scheme = recognized(file).scheme
        if model.head is None or isinstance(model, EfficientNetLite0):
            raise CheckpointError(
                f"`source` should hold a ResNet or ViT with a head, got {path}. Compare another "
                "one; `make parity` compares EfficientNet-Lite0."
            )
        library = library_of(scheme)
        package(library.package)
        config = (
            configuration(source, path, download) if library.package == "transformers" else None
        )
        reference = loaded_reference(library, model, file.tensors, config)
    yield from rows_of(source if on_hub else path.name, scheme.name, Pair(reference, model, scheme))


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


def failures(results: dict[str, Any]) -> list[str]:
    """Return a line for every difference above its bar."""
    return [
        f"{row['model']}, {row['names']}, {row['mode']}: {kind} differ by {row[kind]:.1e}, "
        f"at most {bar:g}."
        for row in results["rows"]
        for kind, bar in results["bars"][row["mode"]].items()
        if row[kind] is not None and not row[kind] <= bar
    ]


def text(results: dict[str, Any]) -> str:
    """Return the table and how to read it."""
    rows = [
        {name: f"{x:.1e}" if isinstance(x, float) else x for name, x in row.items()}
        for row in results["rows"]
    ]
    return f"{markdown(rows)}\n{NOTE}"


QUESTION = Question(
    "parity", __doc__, measure, text, failures, options=add_options, packages=PACKAGES
)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
