"""One line a minute about what others can cause as often as they like."""

import asyncio
from typing import Any

from service.observability.tally import Tally


class Lines(list[dict[str, Any]]):
    def warning(self, event: str, **fields: Any) -> None:
        self.append({"event": event, **fields})


async def test_the_first_is_told_at_once_and_the_others_together_when_the_time_is_over() -> None:
    lines = Lines()
    tally = Tally(lines, "refused", every=0.2)
    for _ in range(1000):
        tally.count("a")
    tally.count("b")
    assert lines == [{"event": "refused", "count": 1, "reasons": {"a": 1}}]
    await asyncio.sleep(0.4)
    assert lines[1:] == [{"event": "refused", "count": 1000, "reasons": {"a": 999, "b": 1}}]


async def test_a_minute_in_which_nothing_happened_has_no_line_of_its_own() -> None:
    lines = Lines()
    tally = Tally(lines, "refused", every=0.05)
    tally.count("a")
    await asyncio.sleep(0.2)
    assert len(lines) == 1
    tally.count("a")
    assert len(lines) == 2
    tally.close()


async def test_what_was_not_told_yet_is_told_at_the_end_and_nothing_after_it() -> None:
    lines = Lines()
    tally = Tally(lines, "refused", every=0.05)
    tally.count("a")
    tally.count("b")
    tally.close()
    assert lines[1:] == [{"event": "refused", "count": 1, "reasons": {"b": 1}}]
    await asyncio.sleep(0.1)
    assert len(lines) == 2
