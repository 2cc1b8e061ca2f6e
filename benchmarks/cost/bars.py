"""What an update may cost at most: data, and the comparisons."""

from collections.abc import Mapping

import jax

from benchmarks.cost.compiled import Cost

# In N, the bytes of one parameter tree. The floor of two passes over a pair is 8, of L2-SP 9.
PAIR = {"bytes": 10.1, "temporary": 0.01}
L2_SP = {"bytes": 12.1, "temporary": 0.01}
# Of the forms with Adam, whose floor is 10, in the metric 13. Its direction, or `P`, is kept for
# the last pass.
ADAM = {
    "dtnh, then Adam": {"bytes": 15.1, "temporary": 0.01},
    "dtnh, inner=scale_by_adam": {"bytes": 17.1, "temporary": 1.01},
    "scale_by_adam_dtnh": {"bytes": 21.1, "temporary": 1.01},
}
ADAM_PRODUCTS = {"dtnh, then Adam": 2, "dtnh, inner=scale_by_adam": 2, "scale_by_adam_dtnh": 3}

# Of every form with every optimizer: bytes, temporary, as measured. What lies between the floors of
# `grid` and these is XLA:CPU's. Each inner product is a reduction of its own, and reads `g` again.
# An optimizer's new moments are read back for the parameters, and what goes into them (`g`, `r`,
# `w_s`, a smoothed reference) is read for each of them. What two passes share and no fusion
# computes twice is stored, at 1 N of temporary and 2 N of bytes: a smoothed or clipped gradient,
# the direction inside, what Lion takes the sign of, the steps of Adafactor and Muon.
GRID_BARS = {
    "alone": {
        "SGD": (3.1, 0.01),
        "momentum": (6.1, 0.01),
        "Adam": (10.1, 0.01),
        "AdamW": (10.1, 0.01),
        "Lion": (9.1, 1.01),
        "Adafactor": (14.1, 1.3),
        "Muon": (87.0, 7.1),
    },
    "dtnh": {
        "SGD": (7.1, 0.01),
        "momentum": (10.1, 0.01),
        "Adam": (15.1, 0.01),
        "AdamW": (15.1, 0.01),
        "Lion": (14.1, 0.8),
        "Adafactor": (20.1, 2.01),
        "Muon": (92.0, 7.1),
    },
    "add_l2_sp": {
        "SGD": (8.1, 0.01),
        "momentum": (12.1, 0.01),
        "Adam": (18.1, 0.01),
        "AdamW": (18.1, 0.01),
        "Lion": (18.1, 1.3),
        "Adafactor": (22.1, 2.01),
        "Muon": (95.0, 7.1),
    },
    "dtnh, reference=ema": {
        "SGD": (13.1, 1.01),
        "momentum": (16.1, 1.01),
        "Adam": (22.1, 1.01),
        "AdamW": (22.1, 1.01),
        "Lion": (21.1, 1.6),
        "Adafactor": (26.1, 2.01),
        "Muon": (99.0, 7.1),
    },
    "dtnh, labels=per_leaf": {
        "SGD": (7.1, 0.01),
        "momentum": (10.1, 0.01),
        "Adam": (15.1, 0.01),
        "AdamW": (15.1, 0.01),
        "Lion": (14.1, 0.9),
        "Adafactor": (20.1, 2.3),
        "Muon": (92.0, 7.1),
    },
    "transform_pair (one clipped), dtnh": {
        "SGD": (10.1, 1.01),
        "momentum": (13.1, 1.01),
        "Adam": (18.1, 1.01),
        "AdamW": (18.1, 1.01),
        "Lion": (17.1, 1.6),
        "Adafactor": (23.1, 2.01),
        "Muon": (95.0, 7.1),
    },
    "transform_pair (each apart), dtnh": {"momentum": (13.1, 0.01)},
    "dtnh, inner=": {
        "momentum": (11.1, 0.01),
        "Adam": (17.1, 1.01),
        "AdamW": (17.1, 1.01),
        "Lion": (13.1, 1.01),
        "Adafactor": (20.1, 2.01),
        "Muon": (92.0, 7.1),
    },
    "scale_by_adam_dtnh": {"Adam": (21.1, 1.01), "AdamW": (21.1, 1.01)},
}

# The inner products that are left in the program. The state's `conflict` needs <r, m> always.
PRODUCTS = {"truncate": 2, "orthogonal": 2, "drop": 2, "plain": 1, "cosine": 3}
UNBARRED = "cosine"  # needs the norm of r as well: a pass more, and a stored tree for L2-SP

SMALL_LEAVES = {"instructions": 15_000}
SMALL_LEAVES_OF_ADAM = {"instructions": 28_000}  # Adam alone: 9,400
LINEAR = 1.05  # how far the second increment of the instructions may exceed the first, per leaf

# Relative to one gradient of the sum: 5/3 for a regularizer of the last map, which needs a second
# backward pass of the same length; 4/3 for one that sees the first half, plus what is uneven.
FLOPS = {"last map": 1.67, "first half": 1.45}


def storage_is_known() -> bool:
    """Return whether this XLA is the one that the bars on its storage decisions are set for."""
    return jax.__version_info__[:2] == (0, 12) and jax.default_backend() == "cpu"


def resnet50_bars(name: str, leaves: int) -> dict[str, float]:
    """Return the bars of the form `name` on the ResNet-50-shaped tree."""
    factory, _, option = name.partition(", ")
    rule = option if option in PRODUCTS else "truncate"
    family = PAIR if factory == "dtnh" else L2_SP
    return ({} if rule == UNBARRED else family) | {"reductions": PRODUCTS[rule] * leaves}


def adam_bars(name: str, leaves: int) -> dict[str, float]:
    """Return the bars of a form with Adam on the ResNet-50-shaped tree."""
    return ADAM[name] | {"reductions": ADAM_PRODUCTS[name] * leaves}


def grid_bars(form: str, optimizer: str) -> dict[str, float]:
    """Return the bars of a form with an optimizer on the ResNet-50-shaped tree."""
    return dict(zip(("bytes", "temporary"), GRID_BARS[form][optimizer], strict=True))


def broken(name: str, cost: Cost, bars: Mapping[str, float]) -> list[str]:
    """Return one message for every bar that `cost` exceeds."""
    found = cost._asdict()
    return [
        f"{name}: {quantity} {found[quantity]:.5g}, at most {bar:.5g}"
        for quantity, bar in bars.items()
        if not found[quantity] <= bar
    ]


def nonlinear(name: str, instructions: Mapping[int, int]) -> list[str]:
    """Return a message if the instructions grow faster than the number of leaves."""
    (n0, i0), (n1, i1), (n2, i2) = sorted(instructions.items())
    first, second = (i1 - i0) / (n1 - n0), (i2 - i1) / (n2 - n1)
    if second <= LINEAR * first:
        return []
    return [
        f"{name}: {second:.1f} instructions per leaf from {n1} to {n2} leaves, "
        f"at most {LINEAR} times the {first:.1f} from {n0} to {n1}"
    ]
