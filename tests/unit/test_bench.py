"""What the benchmarks send is distinct, and as long as what it is compared with."""

import json
from itertools import islice

import pytest

from tools.bench.cloud import COMPARISONS
from tools.bench.work import WORKS
from tools.bodies import IDENTITY_BYTES

NOW_MS = 1_700_000_500_000
USERS = 500


def sent(work: str, count: int = 60) -> list[bytes]:
    return list(islice(WORKS[work](7, NOW_MS, USERS), count))


@pytest.mark.parametrize("work", WORKS)
def test_every_body_is_json_and_no_two_are_the_same(work: str) -> None:
    found = sent(work, 3 if "batches" in work else 60)
    assert all(isinstance(json.loads(body), dict) for body in found)
    if work != "everyday":  # in which a contact check may come again
        assert len(set(found)) == len(found)


def test_two_runs_send_nothing_in_common() -> None:
    one, other = (set(islice(WORKS["identities"](first, NOW_MS, 0), 100)) for first in (0, 100))
    assert not one & other


def test_the_notification_of_an_identity_change_is_433_bytes_long() -> None:
    assert {len(body) for body in sent("identities")} == {IDENTITY_BYTES} == {433}


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_a_reference_is_as_long_as_what_is_compared_with_it(comparison: tuple[str, ...]) -> None:
    work, reference, _ = comparison
    longest, length = max(map(len, sent(work))), {len(body) for body in sent(reference)}
    assert length == {longest}
