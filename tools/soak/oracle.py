"""What must hold in the end, judged by the record alone: no rule of the service's own is used.

Everything that was sent has got its 200 by then, so nothing depends on what was under way.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from tools.soak.cloud_model import Life, ModelError, ModelUser, live, names_of_users
from tools.soak.evidence import ClientIdentity, Evidence, GateAnswer, Identity, Put
from tools.soak.record import MAX_CHANGES, Change, Record, Violation
from tools.soak.states import Case, cases, states

EFFECTIVE = {"acknowledged", "already"}
NEEDED = (
    "bodies", "users", "PUTs", "gate answers", "users of the Cloud API", "relayed callbacks",
    "callbacks that were still to be relayed at the backup",
)  # fmt: skip
ONCE = {"changed", "acknowledged", "superseded"}
"""Events of the audit trail that a change of a user has once."""


def judge(record: Record, evidence: Evidence) -> list[Violation]:
    """Return every violation; none where every promise was kept."""
    found = list(record.violations)
    for check in CHECKS:
        found.extend(check(record, evidence))
    return found


def the_database_is_sound(_: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that the database's checks find no fault, and that the log has no internal error."""
    for line in evidence.integrity_errors:
        yield Violation("the database is not sound", line)
    for line in evidence.log_errors:
        yield Violation("the service logged an internal error", line)


def something_was_judged(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that there was something to judge: a soak of nothing breaks no promise."""
    counts = coverage(record, evidence)
    for name in NEEDED:
        if not counts[name]:
            yield Violation(f"there were no {name} to judge", "")


def nothing_accepted_is_lost(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand a row of the journal for each 200, byte for byte, and no row that was made up."""
    if record.undelivered:
        yield Violation("a callback was not accepted in the end", f"{record.undelivered} of them")
    kept = Counter(row.body for row in evidence.journal)
    for body, missing in (record.accepted - kept).items():
        yield Violation("a 200 was given for a callback that was lost", f"{missing} {body!r}")
    for body in kept.keys() - record.sent:
        yield Violation("the journal has a callback that nobody sent", repr(body))
    for row in evidence.journal:
        if row.state != "applied":
            yield Violation(f"a callback is {row.state}", repr(row.body))


def everything_was_relayed(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand each callback of the journal at each sink, and the changes of a user in order."""
    kept = Counter(row.body for row in evidence.journal)
    for name, taken in record.relayed.items():
        came = Counter(taken.values())
        for body, missing in (kept - came).items():
            yield Violation(f"a callback was not relayed to the {name} sink", f"{missing} {body!r}")
        for body in came.keys() - record.sent:
            yield Violation(f"the {name} sink got what nobody sent", repr(body))
        yield from _out_of_order(record, name, taken)


def relays_go_on_after_a_restore(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand at each sink what was not delivered at the backup, and what came since; no more."""
    journal, undelivered = evidence.restored
    for name, ids in undelivered.items():
        taken = record.relayed_again.get(name, {})
        for id_ in ids - taken.keys():
            said = f"{id_} {journal[id_]!r}"
            yield Violation(f"a restored relay did not deliver to the {name} sink", said)
        for id_ in taken.keys() - ids:
            said = f"{id_} {taken[id_]!r}"
            yield Violation(f"the {name} sink got again what the backup knew as delivered", said)
        for id_ in ids & taken.keys():
            if taken[id_] != journal[id_]:
                said = f"{id_} {taken[id_]!r} {journal[id_]!r}"
                yield Violation(f"a restored relay delivered something else to {name}", said)
        yield from _out_of_order(record, name, taken)


def _out_of_order(record: Record, name: str, taken: Mapping[int, bytes]) -> Iterator[Violation]:
    newest: dict[str, int] = {}
    for number, body in taken.items():
        change = record.sightings.get(body)
        if change is not None and number < newest.get(change.wa_id, 0):
            yield Violation(f"the {name} sink got a user's changes out of order", str(change))
        if change is not None:
            newest[change.wa_id] = number


def every_change_is_known_once(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that an accepted change is the latest or in the history, and was entered once."""
    known = evidence.history | {(w, i.hash) for w, i in evidence.identities.items() if i.hash}
    changes = {(change.wa_id, change.hash) for change in _accepted(record)}
    for change in changes - known:
        yield Violation("a change was accepted and is not known", str(change))
    for change in known - changes:
        yield Violation("an identity is known that nobody reported", str(change))
    for change in changes:
        if (count := evidence.audit[change[0], "changed", change[1]]) != 1:
            yield Violation("a change is not in the audit trail once", f"{change}: {count}")
    for (wa_id, event, hash_), count in evidence.audit.items():
        if event in ONCE and count > 1:
            yield Violation(f"'{event}' happened twice", f"{wa_id} {hash_}: {count}")


def the_latest_is_the_latest(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that a user's identity is the accepted one with the latest event time."""
    for case in cases(record, evidence):
        found = evidence.identities.get(case.wa_id, Identity(None, None)).hash
        if found != case.latest.hash:
            said = f"{case.wa_id}: {found}, but of {case.changes} the last is right"
            yield Violation("another identity than the latest by event time", said)


def every_state_is_right(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand the state that policy and decisions lead to."""
    waiting = {work.wa_id for work in evidence.outbox if work.waits(evidence.now)}
    for case in cases(record, evidence):
        right = states(case) | ({"acknowledging"} if case.wa_id in waiting else set())
        found = evidence.identities.get(case.wa_id, Identity(None, None)).state
        if found not in right:
            said = f"{case.wa_id} {case.latest.hash}: {found}, decisions: {case.decisions}"
            yield Violation(f"{case.handling}: {found} where {_either(right)} is right", said)


def the_client_has_the_same(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that what is acknowledged here is so at the client, and nothing else."""
    waiting = {work.wa_id for work in evidence.outbox if work.waits(evidence.now)}
    for case in cases(record, evidence):
        if case.wa_id in waiting or case.held_over_a_put:
            continue
        state = evidence.identities.get(case.wa_id, Identity(None, None)).state
        expected = ClientIdentity(case.latest.hash, state == "acknowledged")
        if (found := evidence.client.get(case.wa_id)) != expected:
            yield Violation(
                "the client has another state", f"{case.wa_id}: {found}, not {expected}"
            )


def every_put_was_allowed(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that a PUT names a hash that the user had, and that was decided and not held."""
    by_user = {case.wa_id: case for case in cases(record, evidence)}
    for put in evidence.puts:
        case = by_user.get(put.wa_id)
        if case is None or put.hash not in {change.hash for change in case.changes}:
            yield Violation("a PUT for an identity that the user never had", str(put))
        elif not case.may_be_put(put):
            yield Violation("a PUT that neither policy nor a person decided", str(put))
        elif case.was_held(put):
            yield Violation("a PUT for an identity that was held", str(put))


def nothing_is_acknowledged_twice(_: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand one effective PUT for a hash, but for those that a fault of the client kept open."""
    earlier: dict[tuple[str, str], list[Put]] = {}
    for put in evidence.puts:
        before = earlier.setdefault((put.wa_id, put.hash), [])
        repeated = any(p.outcome in EFFECTIVE for p in before)
        if put.outcome in EFFECTIVE and repeated and not any(p.faulty for p in before):
            yield Violation("an identity was acknowledged twice", f"{put}, before: {before}")
        before.append(put)


def no_work_is_left(_: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that nothing is leased, and that what is left is due later, for a reason."""
    for work in evidence.outbox:
        if work.lease_until is not None:
            yield Violation("work is leased and nobody does it", str(work))
        elif not work.waits(evidence.now):
            yield Violation("work is due and nobody does it", str(work))
        elif work.kind == "acknowledge" and work.error is None:
            yield Violation("work waits without a reason", str(work))


def the_gate_agrees(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that the gate blocks for what is known of a user, and for nothing else."""
    by_user = {case.wa_id: case for case in cases(record, evidence)}
    for name, found in evidence.gate.items():
        right, case = _reasons(name, record, evidence), by_user.get(name)
        asked_at = evidence.asked_at.get(name, 0.0)
        if case is not None and (case.has_new_owner or "number_changed" not in found):
            right -= {"number_changed"} if case.may_have_new_owner(asked_at) else set()
        if found != right:
            said = f"{name}: {sorted(found)}, not {sorted(right)}"
            yield Violation("the gate does not agree with what is known", said)
    for case in by_user.values():
        if case.wa_id not in evidence.gate:
            yield Violation("the gate gave no answer", case.wa_id)


def _reasons(name: str, record: Record, evidence: Evidence) -> frozenset[str]:
    state = evidence.identities.get(name, Identity(None, None)).state
    found = set() if state in {None, "acknowledged"} else {f"identity_{state}"}
    if name in record.number_changes:
        found.add("number_changed")
    if record.checks.get(name) == "invalid":
        found.add("contact_invalid")
    return frozenset(found)


def numbers_and_contacts_are_known(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand each change of a number once for both users, and each check's reported result."""
    audited: Counter[str] = Counter()
    for (wa_id, event, _), count in evidence.audit.items():
        audited[wa_id] += count * (event == "number_changed")
    for old, change in record.number_changes.items():
        for wa_id in (old, change.wa_id):
            if audited[wa_id] != 1:
                yield Violation("a number did not change once", f"{wa_id}: {audited[wa_id]}")
    for name, status in record.checks.items():
        if (found := evidence.contacts.get(name)) != status:
            yield Violation("a contact check has another result", f"{name}: {found}, not {status}")


def every_cloud_user_is_right(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand of the Cloud API that names lead where they must, and to the identity that is right.

    The gate must give the trusted hash to send along, and no other.
    """
    reported: set[tuple[str, str]] = set()
    for life in record.lives:
        reported |= {(life.account, name) for step in life.steps for name in step[1:3] if name}
        try:
            found = live(life)
        except ModelError as error:
            yield Violation("a decision about another hash than the latest was taken", str(error))
            continue
        for names in names_of_users(found):
            yield from _cloud_user_is_right(life, found, names, evidence)
    for unknown in evidence.cloud.keys() - reported:
        yield Violation("a user of the Cloud API is known that nobody reported", str(unknown))
    for line in evidence.cloud_duplicates:
        yield Violation("something happened twice on the Cloud API", line)


def _cloud_user_is_right(
    life: Life, found: Mapping[str, ModelUser], names: frozenset[str], evidence: Evidence
) -> Iterator[Violation]:
    stored = [evidence.cloud.get((life.account, name)) for name in names]
    if len({None if one is None else one.id for one in stored}) != 1:
        yield Violation("names of one user lead to more than one", f"{names} {life}")
    right = found[next(iter(names))]
    for one in stored:
        if one is None or (one.hash, one.state) != (right.hash, right.state):
            yield Violation("a user of the Cloud API has another identity", f"{one} {right} {life}")
        elif one.answer != _answer(right):
            yield Violation(
                "the gate says something else of the Cloud API", f"{one} {right} {life}"
            )


def _answer(right: ModelUser) -> GateAnswer:
    if right.state == "acknowledged":
        return GateAnswer(frozenset(), right.hash)
    if right.state == "awaiting_hash":
        return GateAnswer(frozenset(), None)
    return GateAnswer(frozenset({f"identity_{right.state}"}), None)


def the_guard_held(record: Record, evidence: Evidence) -> Iterator[Violation]:
    """Demand that a change after too many, in the journal's order, waits for a person."""
    for case in _guarded(record, evidence):
        state = evidence.identities.get(case.wa_id, Identity(None, None)).state
        if state != "pending":
            said = f"{case.wa_id} {case.latest.hash}: {state}"
            yield Violation("a change went past the guard", said)


def _guarded(record: Record, evidence: Evidence) -> list[Case]:
    """Return the users whom the guard surely stopped: the client was not asked in between."""
    before = _known_before(record, evidence)
    return [
        case
        for case in cases(record, evidence)
        if case.left_to_policy
        and before.get(case.latest, 0) >= MAX_CHANGES
        and evidence.asked_at.get(case.wa_id, 0.0) * 1000 < case.latest.at_ms
    ]


def _known_before(record: Record, evidence: Evidence) -> dict[Change, int]:
    """Return how many changes of the same user were in effect when each took effect."""
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
    """Count what could be judged, to notice a soak that judged nothing."""
    found = Counter(case.handling for case in cases(record, evidence))
    return {
        "bodies": len(record.accepted),
        "users": found.total(),
        "changes": sum(len(case.changes) for case in cases(record, evidence)),
        "decisions": sum(decision.accepted for decision in record.decisions),
        "users stopped by the guard": len(_guarded(record, evidence)),
        "PUTs": len(evidence.puts),
        "gate answers": len(evidence.gate),
        "users of the Cloud API": len({one.id for one in evidence.cloud.values()}),
        "relayed callbacks": sum(map(len, record.relayed.values())),
        "callbacks that were still to be relayed at the backup": sum(
            map(len, evidence.restored.undelivered.values())
        ),
        "steps on the Cloud API": sum(len(life.steps) for life in record.lives),
    }


CHECKS: tuple[Callable[[Record, Evidence], Iterator[Violation]], ...] = (
    something_was_judged,
    the_database_is_sound,
    nothing_accepted_is_lost,
    everything_was_relayed,
    relays_go_on_after_a_restore,
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
    every_cloud_user_is_right,
)
