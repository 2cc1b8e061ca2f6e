"""Strict settings for every test, and how long Hypothesis searches."""

import os
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # for the sharding tests

# Hypothesis notes the constants of our code; not in the checkout.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "hypothesis")
)

# The same examples in every run of a profile, so that a failure is one of the change. Nothing is
# stored.
settings.register_profile(
    "short", max_examples=20, derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("long", settings.get_profile("short"), max_examples=250)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="module")
def quickly_compiled():
    """For programs that are compiled once and run once: half the time, slower code."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
