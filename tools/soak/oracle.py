"""What must hold in the end, told from the record alone: none of the service's own rules is used.

Everything that was sent has got its 200 by then, so nothing depends on what was under way.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from tools.soak.customers import Customer, Life, ModelError, live, together
from tools.soak.evidence import AtClient, Evidence, Identity, Put, Shown
from tools.soak.record import MAX_CHANGES, Change, Record, Wrong
from tools.soak.states import Case, cases, states

EFFECTIVE = {"acknowledged", "already"}
NEEDED = ("bodies", "users", "PUTs", "gate answers", "users of the Cloud API")
ONCE = {"changed", "acknowledged", "superseded"}
"""Events of the audit trail that a change of a user has once."""


def judge(record: Record, evidence: Evidence) -> list[Wrong]:
    """Give everything that is wrong; nothing where every promise was kept."""
    found = list(record.wrongs)
    for check in CHECKS:
        found.extend(check(record, evidence))
    return found


def the_database_is_sound(_: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that SQLite has no objection, and that the service told of no fault of its own."""
    for line in evidence.unsound:
        yield Wrong("the database is not sound", line)
    for line in evidence.said:
        yield Wrong("the service logged a fault of its own", line)


def something_was_judged(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that there was something to judge: an empty soak keeps every promise."""
    counts = coverage(record, evidence)
    for name in NEEDED:
        if not counts[name]:
            yield Wrong(f"there were no {name} to judge", "")


def nothing_accepted_is_lost(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand a row of the journal for each 200, byte for byte, and no row that was made up."""
    if record.owed:
        yield Wrong("a callback was not accepted in the end", f"{record.owed} of them")
    kept = Counter(row.body for row in evidence.journal)
    for body, missing in (record.accepted - kept).items():
        yield Wrong("a 200 was given for a callback that was lost", f"{missing} {body!r}")
    for body in kept.keys() - record.sent:
        yield Wrong("the journal has a callback that nobody sent", repr(body))
    for row in evidence.journal:
        if row.state != "applied":
            yield Wrong(f"a callback is {row.state}", repr(row.body))


def every_change_is_known_once(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that an accepted change is the latest or in the history, and was entered once."""
    known = evidence.history | {(w, i.hash) for w, i in evidence.identities.items() if i.hash}
    changes = {(change.wa_id, change.hash) for change in _accepted(record)}
    for change in changes - known:
        yield Wrong("a change was accepted and is not known", str(change))
    for change in known - changes:
        yield Wrong("an identity is known that nobody told of", str(change))
    for change in changes:
        if (count := evidence.audit[change[0], "changed", change[1]]) != 1:
            yield Wrong("a change is not in the audit trail once", f"{change}: {count}")
    for (wa_id, event, hash_), count in evidence.audit.items():
        if event in ONCE and count > 1:
            yield Wrong(f"'{event}' happened twice", f"{wa_id} {hash_}: {count}")


def the_latest_is_the_latest(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that a user's identity is the accepted one with the latest event time."""
    for case in cases(record, evidence):
        found = evidence.identities.get(case.wa_id, Identity(None, None)).hash
        if found != case.latest.hash:
            said = f"{case.wa_id}: {found}, but of {case.changes} the last is right"
            yield Wrong("another identity than the latest by event time", said)


def every_state_is_right(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand the state that policy and decisions lead to."""
    waiting = {work.wa_id for work in evidence.outbox if work.waits(evidence.now)}
    for case in cases(record, evidence):
        right = states(case) | ({"acknowledging"} if case.wa_id in waiting else set())
        found = evidence.identities.get(case.wa_id, Identity(None, None)).state
        if found not in right:
            said = f"{case.wa_id} {case.latest.hash}: {found}, decisions: {case.decisions}"
            yield Wrong(f"{case.handling}: {found} where {_either(right)} is right", said)


def the_client_has_the_same(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that what is acknowledged here is so at the client, and nothing else."""
    waiting = {work.wa_id for work in evidence.outbox if work.waits(evidence.now)}
    for case in cases(record, evidence):
        if case.wa_id in waiting or case.held_over_a_put:
            continue
        state = evidence.identities.get(case.wa_id, Identity(None, None)).state
        expected = AtClient(case.latest.hash, state == "acknowledged")
        if (found := evidence.client.get(case.wa_id)) != expected:
            yield Wrong("the client has another state", f"{case.wa_id}: {found}, not {expected}")


def every_put_was_allowed(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that a PUT names a hash that the user had, and that was decided and not held."""
    by_user = {case.wa_id: case for case in cases(record, evidence)}
    for put in evidence.puts:
        case = by_user.get(put.wa_id)
        if case is None or put.hash not in {change.hash for change in case.changes}:
            yield Wrong("a PUT for an identity that the user never had", str(put))
        elif not case.may_be_put(put):
            yield Wrong("a PUT that neither policy nor a person decided", str(put))
        elif case.was_held(put):
            yield Wrong("a PUT for an identity that was held", str(put))


def nothing_is_acknowledged_twice(_: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand one effective PUT for a hash, but for those that a fault of the client kept open."""
    earlier: dict[tuple[str, str], list[Put]] = {}
    for put in evidence.puts:
        before = earlier.setdefault((put.wa_id, put.hash), [])
        repeated = any(p.outcome in EFFECTIVE for p in before)
        if put.outcome in EFFECTIVE and repeated and not any(p.faulty for p in before):
            yield Wrong("an identity was acknowledged twice", f"{put}, before: {before}")
        before.append(put)


def no_work_is_left(_: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that nothing is leased, and that what is left is due later, and says why."""
    for work in evidence.outbox:
        if work.lease_until is not None:
            yield Wrong("work is leased and nobody does it", str(work))
        elif not work.waits(evidence.now):
            yield Wrong("work is due and nobody does it", str(work))
        elif work.kind == "acknowledge" and work.error is None:
            yield Wrong("work waits without a reason", str(work))


def the_gate_agrees(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that the gate blocks for what is known of a user, and for nothing else."""
    by_user = {case.wa_id: case for case in cases(record, evidence)}
    for name, found in evidence.gate.items():
        right, case = _reasons(name, record, evidence), by_user.get(name)
        asked_at = evidence.asked_at.get(name, 0.0)
        if case is not None and (case.has_new_owner or "number_changed" not in found):
            right -= {"number_changed"} if case.may_have_new_owner(asked_at) else set()
        if found != right:
            said = f"{name}: {sorted(found)}, not {sorted(right)}"
            yield Wrong("the gate does not agree with what is known", said)
    for case in by_user.values():
        if case.wa_id not in evidence.gate:
            yield Wrong("the gate gave no answer", case.wa_id)


def _reasons(name: str, record: Record, evidence: Evidence) -> frozenset[str]:
    state = evidence.identities.get(name, Identity(None, None)).state
    found = set() if state in {None, "acknowledged"} else {f"identity_{state}"}
    if name in record.moves:
        found.add("number_changed")
    if record.checks.get(name) == "invalid":
        found.add("contact_invalid")
    return frozenset(found)


def numbers_and_contacts_are_known(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand each change of a number once for both users, and each check's result as told."""
    audited: Counter[str] = Counter()
    for (wa_id, event, _), count in evidence.audit.items():
        audited[wa_id] += count * (event == "number_changed")
    for old, moved in record.moves.items():
        for wa_id in (old, moved.wa_id):
            if audited[wa_id] != 1:
                yield Wrong("a number did not change once", f"{wa_id}: {audited[wa_id]}")
    for name, status in record.checks.items():
        if (found := evidence.contacts.get(name)) != status:
            yield Wrong("a contact check has another result", f"{name}: {found}, not {status}")


def every_customer_is_right(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand of the Cloud API that names lead where they must, and to the identity that is right.

    The gate must give the trusted hash to send along, and no other.
    """
    told: set[tuple[str, str]] = set()
    for life in record.lives:
        told |= {(life.account, name) for step in life.steps for name in step[1:3] if name}
        try:
            found = live(life)
        except ModelError as error:
            yield Wrong("a decision about another hash than the latest was taken", str(error))
            continue
        for names in together(found):
            yield from _customer_is_right(life, found, names, evidence)
    for stranger in evidence.customers.keys() - told:
        yield Wrong("a user of the Cloud API is known that nobody told of", str(stranger))
    for line in evidence.told_twice:
        yield Wrong("something happened twice on the Cloud API", line)


def _customer_is_right(
    life: Life, found: Mapping[str, Customer], names: frozenset[str], evidence: Evidence
) -> Iterator[Wrong]:
    at_shop = [evidence.customers.get((life.account, name)) for name in names]
    if len({None if one is None else one.id for one in at_shop}) != 1:
        yield Wrong("names of one user lead to more than one", f"{names} {life}")
    right = found[next(iter(names))]
    for one in at_shop:
        if one is None or (one.hash, one.state) != (right.hash, right.state):
            yield Wrong("a user of the Cloud API has another identity", f"{one} {right} {life}")
        elif one.shown != _shown(right):
            yield Wrong("the gate says something else of the Cloud API", f"{one} {right} {life}")


def _shown(right: Customer) -> Shown:
    if right.state == "acknowledged":
        return Shown(frozenset(), right.hash)
    if right.state == "awaiting_hash":
        return Shown(frozenset(), None)
    return Shown(frozenset({f"identity_{right.state}"}), None)


def the_guard_held(record: Record, evidence: Evidence) -> Iterator[Wrong]:
    """Demand that a change after too many waits for a person, as the journal's order tells."""
    for case in _guarded(record, evidence):
        state = evidence.identities.get(case.wa_id, Identity(None, None)).state
        if state != "pending":
            said = f"{case.wa_id} {case.latest.hash}: {state}"
            yield Wrong("a change went past the guard", said)


def _guarded(record: Record, evidence: Evidence) -> list[Case]:
    """Give the users whom the guard surely stopped: no answer of the client came in between."""
    before = _known_before(record, evidence)
    return [
        case
        for case in cases(record, evidence)
        if case.left_to_policy
        and before.get(case.latest, 0) >= MAX_CHANGES
        and evidence.asked_at.get(case.wa_id, 0.0) * 1000 < case.latest.at_ms
    ]


def _known_before(record: Record, evidence: Evidence) -> dict[Change, int]:
    """Count the changes of the same user that were in effect when each took effect."""
    known: dict[str, set[str]] = {}
    before: dict[Change, int] = {}
    for row in evidence.journal:
        if (change := record.sightings.get(row.body)) is not None:
            hashes = known.setdefault(change.wa_id, set())
            before.setdefault(change, len(hashes))
            hashes.add(change.hash)
    return before


def _accepted(record: Record) -> Iterable[Change]:
    return (record.sightings[body] for body in record.accepted if body in record.sightings)


def _either(right: set[str]) -> str:
    return " or ".join(sorted(right))


def coverage(record: Record, evidence: Evidence) -> dict[str, int]:
    """Count what could be judged, so that a soak that judged nothing can be told."""
    found = Counter(case.handling for case in cases(record, evidence))
    return {
        "bodies": len(record.accepted),
        "users": found.total(),
        "changes": sum(len(case.changes) for case in cases(record, evidence)),
        "decisions": sum(decision.taken for decision in record.decisions),
        "users stopped by the guard": len(_guarded(record, evidence)),
        "PUTs": len(evidence.puts),
        "gate answers": len(evidence.gate),
        "users of the Cloud API": len({one.id for one in evidence.customers.values()}),
        "steps on the Cloud API": sum(len(life.steps) for life in record.lives),
    }


CHECKS: tuple[Callable[[Record, Evidence], Iterator[Wrong]], ...] = (
    something_was_judged,
    the_database_is_sound,
    nothing_accepted_is_lost,
    every_change_is_known_once,
    the_latest_is_the_latest,
    every_state_is_right,
    the_client_has_the_same,
    every_put_was_allowed,
    nothing_is_acknowledged_twice,
    no_work_is_left,
    the_gate_agrees,
    numbers_and_contacts_are_known,
    the_guard_held,
    every_customer_is_right,
)
