"""Other receivers on the same work, installed by `make bench` alone, under `tools/bench/.peers`."""
