"""A callback as it was received: whatever goes wrong with reading it, it is kept."""

from collections.abc import Mapping

from sqlalchemy import select

from service.dialects import onprem
from service.ledger.callbacks import MAX_SLICE, RecordCallback, Replay, together
from service.ledger.ledger import Ledger
from service.model.events import (
    AliasesSeen,
    ContactChecked,
    Event,
    Fault,
    HashRefused,
    MessageSent,
    NumberChanged,
    Reading,
    UserWrote,
)
from service.model.policy import Policies, Policy
from service.model.timeline import Moment
from service.model.users import by_key
from service.observability.metrics import Metrics
from service.store.schema import journal
from service.webhooks.incoming import (
    MAX_HEADER_BYTES,
    Envelope,
    IncomingCallback,
    envelope_of,
    kept_headers,
    label,
    replayed,
)
from tests.storing import MakeDatabase, opening


def events(count: int, wa_id: str = "16315550001") -> Reading:
    return Reading(tuple(UserWrote(wa_id, Moment(at)) for at in range(1, count + 1)))


def received(readings: Mapping[str, Reading], endpoint: str = "@meta") -> IncomingCallback:
    made = IncomingCallback(endpoint, 1, lambda *_: readings, Envelope(), b"{}")
    made.read()
    return made


def failing(_: str, __: str, ___: bytes) -> Mapping[str, Reading]:
    raise RuntimeError("a fault in the dialect")


def plain(content_type: str, content_encoding: str, body: bytes) -> Mapping[str, Reading]:
    return {"main": onprem.read(content_type, content_encoding, body)}


async def test_a_callback_that_the_dialect_fails_on_is_kept_and_harms_no_neighbour(
    make_database: MakeDatabase,
) -> None:
    bad = IncomingCallback("main", 1, failing, Envelope("application/json"), b"{}")
    good = IncomingCallback("main", 2, plain, envelope_of({}, "a-request"), b"{}")
    async with opening(make_database()) as database:
        policies = {"main": Policies((), Policy("default"))}
        ledger = Ledger(database, policies, Metrics(), max_waiting=10)
        await ledger.submit(bad)
        await ledger.submit(good)
        shown = journal.c.state, journal.c.reason, journal.c.body, journal.c.request_id
        query = select(*shown).order_by(journal.c.id)
        rows = await database.read(lambda connection: connection.execute(query).all())
        await ledger.close()
    assert [tuple(row) for row in rows] == [
        ("quarantined", "the rules failed: RuntimeError", b"{}", None),
        ("applied", None, b"{}", "a-request"),
    ]
    assert (bad.state, good.state) == ("quarantined", "applied")
    assert list(bad.rest) == []


def test_only_the_user_agent_and_x_headers_are_kept() -> None:
    headers = {"User-Agent": "a", "X-One": "b", "Authorization": "c", "Cookie": "d", "Host": "e"}
    assert kept_headers(headers) == '[["user-agent", "a"], ["x-one", "b"]]'


def test_headers_beyond_8_kb_are_left_out() -> None:
    headers = {f"X-{n}": "v" * 1000 for n in range(20)}
    assert len(kept_headers(headers)) <= MAX_HEADER_BYTES
    assert '"x-6"' in kept_headers(headers)


def test_a_label_is_bounded_and_can_be_kept() -> None:
    assert label("text/\udcff" + "x" * 500).startswith("text/\\udcff")
    assert len(label("x" * 500)) == 200


def test_one_account_that_is_concerned_names_the_row_else_its_endpoint() -> None:
    fault = Reading(faults=(Fault("", "a fault"),))
    assert received({"shop": events(1)}).account == "shop"
    assert received({"shop": events(1), "": fault}).account == "shop"
    assert received({"shop": events(1), "outlet": events(1)}).account == "@meta"
    assert received({"": fault}).account == "@meta"
    assert received({}).account == "@meta"


def test_only_the_first_of_all_slices_keeps_the_row_and_none_is_for_two_accounts() -> None:
    made = received({"shop": events(MAX_SLICE + 1), "outlet": events(MAX_SLICE * 2), "": Reading()})
    assert made.first is not None
    assert made.first.row is not None
    assert made.first.row.account == "@meta"
    slices = [made.first, *made.rest]
    assert [(one.account, len(one.events), one.keeps_row) for one in slices] == [
        ("shop", MAX_SLICE, True),
        ("shop", 1, False),
        ("outlet", MAX_SLICE, False),
        ("outlet", MAX_SLICE, False),
    ]


def test_faults_of_any_reading_quarantine_and_are_named_in_bounds() -> None:
    faults = Reading(faults=tuple(Fault("", f"fault {n}") for n in range(8)), more_faults=1)
    made = received({"shop": faults, "outlet": events(1), "": faults})
    assert made.state == "quarantined"
    assert made.first is not None
    assert made.first.row is not None
    reason = made.first.row.reason or ""
    assert reason.startswith("fault 0; fault 1")
    assert reason.endswith("fault 1; and 8 more")


def test_what_is_synthetic_is_so_only_as_a_whole() -> None:
    synthetic = Reading(synthetic=True)
    assert received({"": synthetic}).state == "synthetic"
    assert received({"": synthetic, "shop": events(1)}).state == "applied"


def test_when_the_rules_fail_on_one_account_the_others_still_take_effect() -> None:
    made = received({"shop": events(MAX_SLICE + 1), "outlet": events(1)})
    substitute = made.fallback(RuntimeError())
    assert isinstance(substitute, RecordCallback)
    assert (substitute.events, substitute.keeps_row) == ((), True)
    assert made.state == "quarantined"
    assert [one.account for one in made.rest] == ["outlet"]


def test_a_replay_is_cut_for_each_account_and_noted_once() -> None:
    note = Replay(1, by_key("admin"), "applied", None)
    readings = {"shop": events(MAX_SLICE + 1), "outlet": events(1), "": Reading()}
    cut = list(replayed("@meta", 1, b"{}", readings, note))
    assert [(one.account, len(one.events), one.replay) for one in cut] == [
        ("shop", MAX_SLICE, None),
        ("shop", 1, None),
        ("outlet", 1, None),
        ("@meta", 0, note),
    ]


def test_signatures_are_not_kept() -> None:
    headers = {"X-Hub-Signature-256": "a", "x-hub-signature": "b", "X-Hub": "c"}
    assert kept_headers(headers) == '[["x-hub", "c"]]'


def test_of_a_large_callback_what_shares_a_name_is_put_together_in_its_order() -> None:
    shared: list[Event] = [
        UserWrote("1", Moment(1)),
        UserWrote("2", Moment(2)),
        MessageSent("3", "message", Moment(3)),
        ContactChecked("+4", "valid", "4"),
        UserWrote("1", Moment(4)),
        NumberChanged("5", "2", Moment(5)),
        HashRefused(None, Moment(6), "message"),
        AliasesSeen("US.1", "5", "US.ENT.1", Moment(7)),
        ContactChecked("+4", "invalid", None),
        UserWrote("US.ENT.1", Moment(8)),
    ]
    others = [UserWrote(str(number), None) for number in range(100, 100 + MAX_SLICE)]
    one, two, three, four = [0, 4], [1, 5, 7, 9], [2, 6], [3, 8]
    expected = [shared[index] for index in (*one, *two, *three, *four)]
    assert list(together([*shared, *others])) == [*expected, *others]


def test_a_callback_of_one_slice_is_left_as_it_came() -> None:
    mixed = (UserWrote("1", None), UserWrote("2", None), UserWrote("1", None))
    assert together(mixed) is mixed
