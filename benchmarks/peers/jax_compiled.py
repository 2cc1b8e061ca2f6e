"""A compiled function, and what XLA says about it."""

import time
from typing import Any, cast


def compiled_with(fun: Any, *args: Any) -> tuple[Any, dict[str, float]]:
    """Return a jitted function compiled for `args`, its flops and the seconds that it took."""
    start = time.perf_counter()
    compiled = fun.lower(*args).compile()
    seconds, cost = time.perf_counter() - start, cast(Any, compiled.cost_analysis())
    return compiled, {"flops": cost["flops"], "compile_seconds": seconds}
