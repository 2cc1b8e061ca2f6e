"""What every benchmark shares: command line, record, tables, statistics, timing, pages.

`command`, `record`, `tables` and `timing` need jax and numpy alone, so that the benchmark of the
accelerator runs where nothing else is installed.
"""
