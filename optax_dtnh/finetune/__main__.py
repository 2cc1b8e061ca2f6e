r"""Fine-tune a pretrained network on a folder of images, with or without DTNH.

    python -m optax_dtnh.finetune train --source resnet50.safetensors --data birds/ \
        --train-per-class 30 --method l2_sp+dtnh --out out/birds
    python -m optax_dtnh.finetune evaluate --out out/birds
    python -m optax_dtnh.finetune predict --out out/birds a.jpg photos/

The options of a command are listed by `train --help`.
"""

import argparse
import os
import re
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune import interrupts
from optax_dtnh.finetune.arguments import add_options, settings_of
from optax_dtnh.finetune.compare.candidates import add_compare_options, plan_of, refuse_options
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.options import count

TRAIN = """Fine-tune the network in --source on the images in --data.

Run the same command again to resume. The result is bit-identical to an uninterrupted run with the
same versions, number of cores and devices. (This is tested on CPU. A GPU needs
XLA_FLAGS=--xla_gpu_deterministic_ops=true, which has not been tried.)

The run writes model.safetensors (for optax_dtnh.models.load_pretrained), labels.json,
preprocessing.json, train_images.json, settings.json, summary.json, log.jsonl, figure.png,
confusion_matrix.png and mistakes.png, the test images that it was most wrong about. With validation
images, model.safetensors is of the best step by validation, and last.safetensors of the last step.

A finished run is extended by the same command with more --steps or --epochs, if it was trained with
--schedule constant.

The defaults are those of the code published with DELTA: SGD with momentum 0.9, a learning rate of
0.01 that is divided by 10 after two thirds of the steps, batches of 64, at most 9000 steps, both
weight decays, and crops of 224 out of 256 pixels. The weights are not: docs/regularizers.md
converts published weights, which belong to sums.
"""
EVALUATE = """Measure the model in --out on test images.

Without FOLDER, or if the images in it are those of the run, by their checksum, the model is tested
on the test images of the run, and was trained on none of them. In any other FOLDER, it is tested on
all images of the test split, or on all images if there is no test split. Those that the model was
trained on are counted.
"""
COMPARE = """Find out on folds of the training images whether a regularizer helps, and which.

    python -m optax_dtnh.finetune compare --source FILE --data DIR --out DIR
    python -m optax_dtnh.finetune compare RUN RUN ... --out DIR

Plain fine-tuning is taken unless the gain of a candidate is above two standard errors
(docs/compare.md). The choice is then trained on all training images, in the folder `chosen`, and so
is plain fine-tuning, in `finetune`. Test images are used once, for these two. Run the same command
again to resume.

Folders of finished runs are compared by their logs and, if tested on the same images, on these.
"""
PREDICT = """Print the most probable classes of each image, and their probabilities.

An image that cannot be read ends the command if it was named, and is left out of a folder.
"""

FORMATS = ("text", "csv", "jsonl")
_AS_WRITTEN: Any = {"formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that starts with `error:`."""

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """Refuse unknown arguments, and name the option that the first of them resembles."""
        chosen, unknown = super().parse_known_args(*args, **named)
        if unknown:
            names, word = self._option_string_actions, unknown[0].split("=")[0]
            near = [x for x in names if "--" + re.sub(r"-*(\w)\w*", r"\1", x) == word]  # as --lr
            near = near or get_close_matches(word, names, 1)
            mend = f"Did you mean {near[0]}?" if near else f"See `{self.prog} --help`."
            self.error(f"unrecognized arguments: {' '.join(unknown)}. {mend}")
        return chosen, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        if re.search(r"^argument .*'[^' ]+,[^' ]+'", message):
            message += ". Separate values by spaces, and write decimals with a point."
        self.exit(2, f"error: {' '.join(message.split())}\n")


def _name(given: str) -> str:
    """Return what is given for an option, unless an unset variable has left it empty."""
    if not given:
        raise argparse.ArgumentTypeError("it should be a name, got an empty one")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; what the user can mend ends it with one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # file names may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    options = parser()
    chosen = options.parse_args(argv)
    try:
        chosen.act(chosen)
    except BrokenPipeError:  # of `| head`: what is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UsageError, ModuleNotFoundError, RuntimeError) as error:
        if (text := _told(error)) is None:
            raise
        options.error(text)


def _told(error: Exception) -> str | None:
    """Return what the user should read and mend, None for a fault of ours."""
    if isinstance(error, UsageError):
        return str(error)
    if "RESOURCE_EXHAUSTED" in str(error):  # as jax has it
        mend = "Lower `--batch-size` or `--image-size`, or give `--micro-batches`"
        return f"The memory does not suffice. {mend}: {str(error):.120}"
    name = getattr(error, "name", None)
    if name is None or name.startswith("optax_dtnh"):
        return None
    extra = "tensorboard" if name == "tensorboardX" else "finetune"
    mend = f"Run `pip install 'optax-dtnh[{extra}]'`."
    return f"`{name}` is not installed, and the command needs it. {mend}"


def parser() -> Parser:
    """Return the parser of all commands."""
    options = Parser(prog="python -m optax_dtnh.finetune", description=__doc__, **_AS_WRITTEN)
    commands = options.add_subparsers(required=True, metavar="COMMAND")
    finished, new = "Folder of a finished run.", "it is made if it does not exist."
    train = _command(commands, "train", _train, TRAIN, f"Folder of the run; {new}")
    groups = add_options(train)
    where = "Train in several processes. Give HOST:PORT of the first process, the number of "
    where += "processes and the index of this one, or nothing where jax finds them."
    groups["machine"].add_argument("--distributed", nargs="*", metavar="WHERE", help=where)
    _add_evaluation(_command(commands, "evaluate", _evaluate, EVALUATE, finished).add_argument)
    _add_prediction(_command(commands, "predict", _predict, PREDICT, finished).add_argument)
    out = f"Folder of the comparison; {new}"
    add_compare_options(_command(commands, "compare", _compare, COMPARE, out))
    return options


def _command(
    commands: Any, name: str, act: Callable[[Namespace], None], text: str, out: str
) -> Parser:
    command = commands.add_parser(name, help=text.splitlines()[0], description=text, **_AS_WRITTEN)
    command.register("type", None, _name)
    command.register("type", Path, lambda given: Path(_name(given)))
    command.set_defaults(act=act)
    command.add_argument("--out", type=Path, metavar="DIR", required=True, help=out)
    return command


def _add_evaluation(add: Callable[..., Any]) -> None:
    add("FOLDER", nargs="?", help="Labeled images or tfds:NAME (default: the data of the run).")
    add("--labels", metavar="FILE", help="Table of path and label of the images in FOLDER.")
    add("--data-dir", metavar="DIR", help="Folder of TFDS data sets (default: that of the run).")
    add("--classes", metavar="NAME", nargs="+", help="Use these classes alone.")
    results = "Write metrics.json, confusion_matrix.png and mistakes.png into this folder."
    add("--results", type=Path, metavar="DIR", help=results)


def _add_prediction(add: Callable[..., Any]) -> None:
    add("IMAGE", nargs="+", help="Images, folders of images, or - for a list on standard input.")
    add("--top", type=count, default=1, metavar="N", help="Classes of each image (default: 1).")
    form = "A line for each image, with tabs (text); a line for each class (csv); or JSON lines "
    add("--format", choices=FORMATS, default=FORMATS[0], help=f"{form}(default: {FORMATS[0]}).")


# Each act has imports of its own: mistakes in arguments should not wait for flax, grain and orbax.


def _train(chosen: Namespace) -> None:
    settings = settings_of(chosen)
    from optax_dtnh.finetune import train

    train.train(settings, chosen.out, chosen.distributed)


def _evaluate(chosen: Namespace) -> None:
    from optax_dtnh.finetune import evaluate

    where = {name: getattr(chosen, name) for name in ("labels", "data_dir", "classes")}
    evaluate.evaluate(chosen.out, {"data": chosen.FOLDER, **where}, chosen.results)


def _compare(chosen: Namespace) -> None:
    if chosen.runs:
        refuse_options(chosen, parser())
        from optax_dtnh.finetune.compare import finished

        finished.compare_runs(chosen.runs, chosen.out)
        return
    plan = plan_of(chosen)
    from optax_dtnh.finetune.compare import command

    command.compare(plan, chosen.out)


def _predict(chosen: Namespace) -> None:
    from optax_dtnh.finetune import predict

    predict.predict(chosen.out, chosen.IMAGE, top=chosen.top, form=chosen.format)


if __name__ == "__main__":
    interrupts.fatal()
    main()
