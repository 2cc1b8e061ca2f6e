"""What the pages quote from the record: losses of fine-tuning, of the plain KL, and with DTNH."""

from functools import partial

from benchmarks.language.report import DTNH, PLAIN, TUNED, of


def three(results: dict, loss: str) -> str:
    """Return the losses in nats, the KL's at the weight 3."""
    runs = (TUNED, 0.0), (PLAIN, 3.0), (DTNH, 3.0)
    return " → ".join(f"{of(results, *run, loss).mean() / 100:.2f}" for run in runs)


old, training = partial(three, loss="old"), partial(three, loss="training")
