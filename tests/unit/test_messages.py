"""Messages that callbacks tell of, counted in memory until they are written."""

from service.ledger.contacts import MAX_WA_IDS, Messages
from service.model.budget import Usage
from service.model.events import Reading


def told(sent: tuple[str, ...] = (), delivered: tuple[str, ...] = ()) -> Reading:
    return Reading(sent=sent, delivered=delivered)


def test_each_account_has_its_own() -> None:
    messages = Messages()
    messages.note("main", told(("1", "2"), ("1",)))
    messages.note("main", told(("1",)))
    messages.note("shop", told((), ("9",)))
    assert messages.counted("main") == Usage(sent=3, delivered=1)
    assert messages.take("main") == (Usage(sent=3, delivered=1), {"1", "2"})
    assert messages.take("main") == (Usage(), set())
    assert messages.take("shop") == (Usage(delivered=1), {"9"})


def test_what_could_not_be_written_is_kept_with_what_came_meanwhile() -> None:
    messages = Messages()
    messages.note("main", told(("1", "2")))
    taken = messages.take("main")
    messages.note("main", told((), ("3",)))
    messages.give_back("main", *taken)
    assert messages.take("main") == (Usage(sent=2, delivered=1), {"1", "2", "3"})


def test_beyond_so_many_users_messages_are_counted_alone() -> None:
    messages = Messages()
    messages.note("main", told(tuple(str(n) for n in range(MAX_WA_IDS))))
    messages.note("main", told(("one more",)))
    counted, wa_ids = messages.take("main")
    assert counted.sent == MAX_WA_IDS + 1
    assert "one more" not in wa_ids
