"""The benchmarks, each beside its reference in the same run: `python -m tools.bench`."""
