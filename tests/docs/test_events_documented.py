"""The page of events names each type of the event log, and no other."""

from service.model.event_log import EventType
from tests.docs.conftest import bare, read, table


def test_each_type_of_event_is_documented() -> None:
    rows = table(read("docs/events.md"), "type", "tells that")
    assert [bare(row[0]) for row in rows] == list(EventType)
