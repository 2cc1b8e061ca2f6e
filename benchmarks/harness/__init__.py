"""What every benchmark shares: command line, record, tables, statistics, timing, pages.

All but `statistics` need jax, optax and numpy alone, so that the benchmark of the accelerator runs
where nothing else is installed.
"""
