"""The soak's oracle: silent where every promise was kept, and it names each one that was not."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tools.soak.cloud_model import Kind, Life, ModelError, ModelUser, Step, live
from tools.soak.evidence import (
    ClientIdentity,
    CloudIdentity,
    Evidence,
    GateAnswer,
    Identity,
    JournalRow,
    Put,
    Restored,
    Work,
)
from tools.soak.oracle import judge
from tools.soak.record import Change, Decision, NumberChange, Record

AUTO, PERSON, LATER = "16310000001", "16320000002", "16330000003"
NEW, CHECKED = "16350000004", "+16340000005"
NOW_MS = 1_700_000_100_000
SEEN_S = 1_700_000_000.0
BODIES = {
    b"first": Change(AUTO, "A", 1),
    b"second": Change(AUTO, "B", 2),
    b"person": Change(PERSON, "P", 3),
    b"later": Change(LATER, "L", 4),
    b"status": None,
}


def record() -> Record:
    """Two changes of one user told in disorder, one that a person decided, one that is held."""
    return Record(
        sent=set(BODIES),
        accepted=Counter(BODIES.keys()),
        sightings={body: change for body, change in BODIES.items() if change is not None},
        decisions=[decision(PERSON, "P", "acknowledge"), decision(LATER, "L", "hold")],
        number_changes={PERSON: NumberChange(NEW, 4)},
        checks={CHECKED: "invalid"},
        relayed={"steady": dict(enumerate(sorted(BODIES, reverse=True), 1))},
        relayed_again={"steady": {2: b"second", 3: b"new"}},
        lives=[Life("shop", steps=[seen("A", "W", "U"), seen("B", "W", "U")])],
    )


def seen(hash_: str, wa_id: str | None = "W", user_id: str | None = None) -> Step:
    return Step(Kind.SEEN, wa_id, user_id, hash_)


def step(kind: Kind, hash_: str | None = None) -> Step:
    return Step(kind, "W", None, hash_)


WAITS = GateAnswer(frozenset({"identity_pending"}), None)


def cloud(hash_: str | None = "B", state: str = "pending", **of: Any) -> dict[str, Any]:
    found = CloudIdentity(**{"id": 1, "hash": hash_, "state": state, "answer": WAITS, **of})
    return {"cloud": {("shop", "W"): found, ("shop", "U"): found}}


def decision(wa_id: str, hash_: str, verb: str) -> Decision:
    return Decision(wa_id, hash_, verb, SEEN_S, SEEN_S + 1, 200)


def put(wa_id: str, hash_: str, outcome: str = "acknowledged", after: float = 5) -> Put:
    return Put(wa_id, hash_, SEEN_S + after, outcome, faulty=False)


def evidence(**over: Any) -> Evidence:
    users = {
        AUTO: Identity("B", "acknowledged"),
        PERSON: Identity("P", "acknowledged"),
        LATER: Identity("L", "held"),
        NEW: Identity(None, None),
    }
    changed = [(c.wa_id, "changed", c.hash) for c in BODIES.values() if c is not None]
    moved = [(PERSON, "number_changed", "P"), (NEW, "number_changed", None)]
    found = Evidence(
        now=NOW_MS,
        journal=[JournalRow(body, "applied") for body in sorted(BODIES, reverse=True)],
        identities=users,
        history=frozenset({(AUTO, "A")}),
        audit=Counter([*changed, *moved]),
        contacts={CHECKED: "invalid"},
        gate={
            AUTO: frozenset(),
            PERSON: frozenset({"number_changed"}),
            LATER: frozenset({"identity_held"}),
            NEW: frozenset(),
            CHECKED: frozenset({"contact_invalid"}),
        },
        client={
            AUTO: ClientIdentity("B", acknowledged=True),
            PERSON: ClientIdentity("P", acknowledged=True),
            LATER: ClientIdentity("L", acknowledged=False),
        },
        puts=[put(AUTO, "B"), put(PERSON, "P")],
        restored=Restored({1: b"first", 2: b"second", 3: b"new"}, {"steady": frozenset({2, 3})}),
        **cloud(),
    )
    return replace(found, **over)


def verdict(found: Evidence, told: Record | None = None) -> set[str]:
    return {wrong.what for wrong in judge(told or record(), found)}


def test_it_is_silent_where_every_promise_was_kept() -> None:
    assert verdict(evidence()) == set()


def test_a_lost_callback_is_named() -> None:
    kept = [row for row in evidence().journal if row.body != b"status"]
    assert verdict(evidence(journal=kept)) == {"a 200 was given for a callback that was lost"}


def test_a_body_that_was_accepted_twice_must_be_kept_twice() -> None:
    told = record()
    told.accepted[b"status"] += 1
    assert verdict(evidence(), told) == {"a 200 was given for a callback that was lost"}


def test_a_callback_that_was_not_relayed_is_named() -> None:
    told = record()
    told.relayed["steady"] = {n: b for n, b in told.relayed["steady"].items() if b != b"status"}
    assert verdict(evidence(), told) == {"a callback was not relayed to the steady sink"}
    told.relayed["steady"][9] = b"made up"
    assert "the steady sink got what nobody sent" in verdict(evidence(), told)


@pytest.mark.parametrize(
    ("again", "what"),
    [
        ({2: b"second"}, "a restored relay did not deliver to the steady sink"),
        (
            {1: b"first", 2: b"second", 3: b"new"},
            "the steady sink got again what the backup knew as delivered",
        ),
        ({2: b"second", 3: b"other"}, "a restored relay delivered something else to steady"),
        ({3: b"new", 2: b"second"}, None),
        ({3: b"second", 2: b"first"}, "the steady sink got a user's changes out of order"),
    ],
)
def test_what_a_restored_relay_did_wrong_is_named(
    again: dict[int, bytes], what: str | None
) -> None:
    told = record()
    told.relayed_again = {"steady": again}
    assert (what in verdict(evidence(), told)) if what else not verdict(evidence(), told)


def test_changes_of_a_user_that_were_relayed_in_another_order_are_named() -> None:
    told = record()
    told.relayed["steady"] = dict(reversed(told.relayed["steady"].items()))
    assert verdict(evidence(), told) == {"the steady sink got a user's changes out of order"}


def test_an_identity_that_is_not_the_latest_is_named() -> None:
    users = {**evidence().identities, AUTO: Identity("A", "acknowledged")}
    assert "another identity than the latest by event time" in verdict(
        evidence(identities=users, history=frozenset({(AUTO, "B")}))
    )


def test_a_policy_that_was_not_carried_out_is_named() -> None:
    users = {**evidence().identities, AUTO: Identity("B", "acknowledging")}
    assert "auto: acknowledging where acknowledged is right" in verdict(evidence(identities=users))


def test_a_guard_that_stopped_no_one_is_named() -> None:
    told, found = record(), evidence()
    for number, body in enumerate([b"third", b"fourth"]):
        told.sent.add(body)
        told.accepted[body] += 1
        told.sightings[body] = Change(AUTO, body.decode(), 10 + number)
    more = [JournalRow(body, "applied") for body in (b"first", b"second", b"third", b"fourth")]
    users = {**found.identities, AUTO: Identity("fourth", "acknowledged")}
    assert "a change went past the guard" in verdict(evidence(journal=more, identities=users), told)


def leased(lease_until: int | None, due_at: int = NOW_MS + 1, attempts: int = 1) -> Work:
    return Work(AUTO, "acknowledge", due_at, lease_until, attempts, "no answer")


def puts(*more: Put) -> dict[str, Any]:
    return {"puts": [*evidence().puts, *more]}


@pytest.mark.parametrize(
    ("over", "what"),
    [
        ({"integrity_errors": ["row 1 missing"]}, "the database is not sound"),
        ({"log_errors": ["Traceback"]}, "the service logged an internal error"),
        ({"outbox": [leased(NOW_MS)]}, "work is leased and nobody does it"),
        ({"outbox": [leased(None, NOW_MS - 1)]}, "work is due and nobody does it"),
        ({"contacts": {}}, "a contact check has another result"),
        ({"gate": {}}, "the gate gave no answer"),
        (
            {"gate": {**evidence().gate, AUTO: frozenset({"send_blocked"})}},
            "the gate does not agree with what is known",
        ),
        (
            {"client": {**evidence().client, LATER: ClientIdentity("L", acknowledged=True)}},
            "the client has another state",
        ),
        (
            {"audit": evidence().audit + Counter([(AUTO, "changed", "B")])},
            "a change is not in the audit trail once",
        ),
        (
            {"journal": [*evidence().journal, JournalRow(b"made up", "applied")]},
            "the journal has a callback that nobody sent",
        ),
        ({"cloud_duplicates": ["first_use"]}, "something happened twice on the Cloud API"),
        (cloud("A"), "a user of the Cloud API has another identity"),
        (cloud(state="acknowledged"), "a user of the Cloud API has another identity"),
        (
            cloud(answer=GateAnswer(frozenset(), "B")),
            "the gate says something else of the Cloud API",
        ),
        (
            {"cloud": cloud()["cloud"] | {("outlet", "W"): CloudIdentity(3, "A", None, None)}},
            "a user of the Cloud API is known that nobody reported",
        ),
        (
            {"cloud": cloud()["cloud"] | {("shop", "W"): CloudIdentity(2, "B", "pending", WAITS)}},
            "names of one user lead to more than one",
        ),
        (puts(put(LATER, "L")), "a PUT for an identity that was held"),
        (puts(put(AUTO, "Z")), "a PUT for an identity that the user never had"),
        (puts(put(AUTO, "B", "already")), "an identity was acknowledged twice"),
        (
            {"puts": [put(AUTO, "B"), put(PERSON, "P", after=-1)]},
            "a PUT that neither policy nor a person decided",
        ),
    ],
)
def test_what_must_not_be_is_named(over: dict[str, Any], what: str) -> None:
    assert what in verdict(evidence(**over))


def test_work_that_waits_for_another_try_is_right() -> None:
    users = {**evidence().identities, AUTO: Identity("B", "acknowledging")}
    gate = {**evidence().gate, AUTO: frozenset({"identity_acknowledging"})}
    client = {**evidence().client, AUTO: ClientIdentity("B", acknowledged=False)}
    waiting = evidence(identities=users, gate=gate, client=client, outbox=[leased(None)])
    assert verdict(waiting) == set()


def _hold_and_change(verb: str) -> tuple[Record, Evidence]:
    """Let a change come after the one that a person decided about."""
    told, found = record(), evidence()
    told.decisions[1] = decision(LATER, "L", verb)
    told.sent.add(b"after")
    told.accepted[b"after"] += 1
    told.sightings[b"after"] = Change(LATER, "M", 5)
    told.relayed["steady"][9] = b"after"
    return told, replace(
        found,
        journal=[*found.journal, JournalRow(b"after", "applied")],
        identities={**found.identities, LATER: Identity("M", "acknowledged")},
        history=found.history | {(LATER, "L")},
        audit=found.audit + Counter([(LATER, "changed", "M")]),
        gate={**found.gate, LATER: frozenset()},
        client={**found.client, LATER: ClientIdentity("M", acknowledged=True)},
        puts=[*found.puts, put(LATER, "M")],
    )


@pytest.mark.parametrize(
    ("verb", "right"),
    [
        ("hold", {"delayed: acknowledged where pending is right"}),
        ("acknowledge", set()),
    ],
)
def test_a_change_after_a_held_one_waits_for_a_person(verb: str, right: set[str]) -> None:
    told, found = _hold_and_change(verb)
    assert verdict(found, told) == right


def test_what_was_wrong_under_way_is_not_forgotten() -> None:
    told = record()
    told.add_violation("the API answered a read with 500", "/api/v1/status")
    assert verdict(evidence(), told) == {"the API answered a read with 500"}


def test_everything_that_was_sent_must_have_been_accepted() -> None:
    told = record()
    told.undelivered = 1
    assert verdict(evidence(), told) == {"a callback was not accepted in the end"}


def met(*steps: Step, automatic: bool = False, name: str = "W") -> tuple[str | None, str | None]:
    """Let a user of the Cloud API live; give hash and state."""
    found: ModelUser = live(Life("shop", automatic, list(steps)))[name]
    return found.hash, found.state


@pytest.mark.parametrize(
    ("steps", "right"),
    [
        ([seen("A")], ("A", "acknowledged")),
        ([seen("A"), seen("A")], ("A", "acknowledged")),
        ([seen("A"), seen("B")], ("B", "pending")),
        ([seen("A"), step(Kind.LATE, "0")], ("A", "pending")),
        ([seen("A"), seen("B"), step(Kind.LATE, "0")], ("B", "pending")),
        ([seen("A"), step(Kind.REFUSED)], (None, "pending")),
        ([seen("A"), seen("B"), step(Kind.REFUSED)], ("B", "pending")),
        ([seen("A"), step(Kind.REFUSED), step(Kind.ACKNOWLEDGE)], (None, "awaiting_hash")),
        (
            [seen("A"), step(Kind.REFUSED), step(Kind.ACKNOWLEDGE), seen("B")],
            ("B", "acknowledged"),
        ),
        ([seen("A"), step(Kind.REFUSED), seen("B")], ("B", "pending")),
        ([seen("A"), seen("B"), step(Kind.ACKNOWLEDGE, "B")], ("B", "acknowledged")),
        (
            [seen("A"), seen("B"), step(Kind.ACKNOWLEDGE, "B"), step(Kind.LATE, "0")],
            ("B", "acknowledged"),
        ),
        ([seen("A"), seen("B"), step(Kind.HOLD, "B")], ("B", "held")),
        ([seen("A"), seen("A", None, "U"), seen("A", "W", "U")], ("A", "acknowledged")),
        ([seen("A"), seen("B", None, "U"), seen("B", "W", "U")], ("B", "pending")),
        ([seen("A", "W", "U"), seen("B", "W", "V")], ("B", "pending")),
    ],
)
def test_the_oracle_has_a_model_of_its_own_of_the_cloud_api(
    steps: list[Step], right: tuple[str | None, str]
) -> None:
    assert met(*steps) == right


def test_in_the_oracles_model_policy_trusts_another_hash_where_it_may() -> None:
    assert met(seen("A"), seen("B"), automatic=True) == ("B", "acknowledged")


def test_in_the_oracles_model_who_gave_a_number_away_keeps_the_identity() -> None:
    steps = [seen("A", "W", "U"), seen("B", "W", "V")]
    assert met(*steps, name="U") == ("A", "acknowledged")


@pytest.mark.parametrize(
    ("verb", "right"), [(Kind.HOLD, "pending"), (Kind.ACKNOWLEDGE, "acknowledged")]
)
def test_in_the_oracles_model_who_has_a_number_whose_owner_was_held_waits(
    verb: Kind, right: str
) -> None:
    told = [seen("A", "W", "U"), step(Kind.REFUSED), step(verb), seen("B", "W", "V")]
    assert met(*told, automatic=True) == ("B", right)


def _new_owner(**over: Any) -> Evidence:
    """Let a person acknowledge who came after the number had changed."""
    found = evidence()
    return replace(found, gate={**found.gate, PERSON: frozenset()}, **over)


@pytest.mark.parametrize(("moved_at", "right"), [(2, True), (3, False), (4, False)])
def test_a_number_is_its_new_owners_once_a_person_acknowledged_who_came_after_the_move(
    moved_at: int, *, right: bool
) -> None:
    told = record()
    told.number_changes[PERSON] = NumberChange(NEW, moved_at)
    wrong = {"the gate does not agree with what is known"}
    assert verdict(_new_owner(), told) == (set() if right else wrong)
    assert verdict(evidence(), told) == (wrong if right else set())


def test_a_decision_about_another_hash_than_the_latest_must_not_be_taken() -> None:
    with pytest.raises(ModelError):
        met(seen("A"), seen("B"), step(Kind.ACKNOWLEDGE, "A"))
