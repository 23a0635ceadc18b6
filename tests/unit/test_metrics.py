"""What is measured for every callback, beside prometheus_client's own way of measuring it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.observability.metrics import LateHistogram

BOUNDS = (0.001, 0.5, 1, 10)


def lines(registry: CollectorRegistry) -> list[str]:
    written = generate_latest(registry).decode().splitlines()
    return sorted(line for line in written if "_created" not in line)


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS)))
def test_seconds_are_told_as_prometheus_client_would(measured: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    late = LateHistogram("some_seconds", "Some", BOUNDS, ours)
    plain = Histogram("some_seconds", "Some", buckets=BOUNDS, registry=theirs)
    for seconds in measured:
        late.observe(seconds)
        plain.observe(seconds)
    assert lines(ours) == lines(theirs)
