r"""Fine-tune a pretrained ResNet or ViT on a folder of images, with or without DTNH.

    python -m optax_dtnh.finetune --source resnet50.safetensors --data birds/ \
        --train-per-class 30 --method l2_sp+dtnh --out out/birds

A run that was stopped, however, goes on with the same command, to the very weights that it would
have ended in: with the same versions, number of cores and devices, for others round otherwise.
(Tested on CPU. On a GPU, not tried, XLA picks deterministic operations only with
XLA_FLAGS=--xla_gpu_deterministic_ops=true.) It leaves `model.safetensors` (for `load_pretrained`),
`labels.json`, `preprocessing.json`, `summary.json`, `log.jsonl` and `figure.png`. Afterwards:

    python -m optax_dtnh.finetune --out out/birds --evaluate            # the run's own test images
    python -m optax_dtnh.finetune --out out/birds --predict a.jpg b.jpg

Defaults are those of the code published with DELTA: SGD with momentum 0.9, a learning rate of 0.01
divided by 10 at two thirds of 9000 steps, batches of 64, crops of 224 out of 256 pixels, the new
head decayed at 0.01, each regularizer at its published weight and reduction.
"""

import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from optax_dtnh.finetune import identity, interrupts, options
from optax_dtnh.finetune.options import Settings


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test or predict, as the arguments say; a mistake costs one line."""
    parser = options.parser(__doc__)
    chosen, settings = options.parse(parser, argv)
    try:
        with interrupts.remembered():
            _act(chosen, settings)
    except (ValueError, OSError, ImportError) as error:
        if not _is_ours(error):
            raise
        parser.error(_with_advice(error))
    except KeyboardInterrupt:
        training = chosen.predict is None and chosen.evaluate is None
        text = interrupts.message(chosen.out, settings.save_every) if training else "Stopped."
        interrupts.leave(text, several=chosen.distributed is not None)


def _act(chosen: Namespace, settings: Settings) -> None:
    if chosen.predict is None and chosen.evaluate is None:
        if not identity.check(chosen.out, settings):
            _look_at_files(settings)
    # Imported here: they bring in jax, and `--help` and mistakes should not wait for it.
    from optax_dtnh.finetune import commands

    if chosen.predict is not None:
        commands.predict(chosen.out, chosen.predict)
    elif chosen.evaluate is not None:
        commands.evaluate(chosen.out, chosen.evaluate or None)
    else:
        commands.join(chosen.distributed)
        commands.run(settings, chosen.out)


def _look_at_files(settings: Settings) -> None:
    from optax_dtnh.finetune.sources import look_at

    if not settings.source.startswith("hf:") and not Path(settings.source).exists():
        raise FileNotFoundError(
            f"`--source` should be an existing file or hf:owner/name, got {settings.source}. Check "
            "the path."
        )
    look_at(settings.data, train_per_class=settings.train_per_class, data_dir=settings.data_dir)


def _with_advice(error: Exception) -> str:
    """Return what is wrong and, where Python says that a package is missing, what to do."""
    if str(error).startswith("No module named"):
        return f"{error}. Install the extras: `pip install '.[benchmarks,data,models]'` in a clone."
    return str(error)


def _is_ours(error: Exception) -> bool:
    """Return whether our own code raised it, or the system refused something."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return isinstance(error, OSError) or module.startswith(("benchmarks.", "optax_dtnh."))


if __name__ == "__main__":
    main(sys.argv[1:])
