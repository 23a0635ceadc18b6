"""Programs for developers: the benchmarks, `python -m tools.bench`, and the soak, `tools.soak`."""
