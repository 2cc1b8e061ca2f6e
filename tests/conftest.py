"""Strict settings for every test, where compiled programs are kept, and how Hypothesis searches."""

import os
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import settings

CACHE = Path(__file__).parents[1] / ".cache" / "jax"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # for the sharding tests
# Kept between runs and shared by the workers: a warm run compiles little. In the environment, so
# that the commands which tests start share it too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Hypothesis notes the constants of our code; not in the checkout.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{tempfile.gettempdir()}/hypothesis")

# The same examples in every run of a profile, so that a failure is one of the change. Nothing is
# stored.
settings.register_profile(
    "short", max_examples=20, derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("long", settings.get_profile("short"), max_examples=250)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go():
    """Drop the compiled programs of a module behind it: a worker would keep gigabytes of them."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def quickly_compiled():
    """For programs that are compiled once and run once: half the time, slower code."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
