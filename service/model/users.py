"""A user of an account: the names, the latest identity, its history and its work.

The classes hold the data; the rules that change it are in the other modules of `service.model`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from service.model.event_log import LoggedEvent
from service.model.policy import Policies
from service.model.timeline import Change, Moment

LEASE_MS = 10_000
"""How long work is leased; it is renewed long before."""
MAX_ALIAS_CHARACTERS = 140
MAX_HASH_CHARACTERS = 1024

_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9.]{1,128}")
_ALIAS = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ALIAS_CHARACTERS - 1}}}")


def usable_alias(text: str) -> bool:
    """Return whether the text can name a user: a wa_id, or on the Cloud API a user id."""
    return _ALIAS.fullmatch(text) is not None


def is_user_id(alias: str) -> bool:
    """Return whether an alias has the form of a Cloud API user id, such as `US.1349`."""
    return _USER_ID.fullmatch(alias) is not None


def usable_hash(text: str) -> bool:
    """Return whether the text can be an identity hash: opaque, printable, of bounded length."""
    return 0 < len(text) <= MAX_HASH_CHARACTERS and text.isprintable()


def storable(text: str) -> bool:
    """Return whether a database can hold the text: a lone surrogate or NUL matches nothing."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


# What a link calls somebody who was erased.

ERASED_ALIAS = "erased"
"""How whoever was erased is shown where a name was: the move that a link stands for stays."""
_MARK = f"{ERASED_ALIAS}:"
"""Begins what a link calls somebody who was erased; no alias has a colon."""


def mark_of(user_id: int) -> str:
    """Return what a link calls the user of this id once that one was erased."""
    return f"{_MARK}{user_id}"


def id_of_mark(alias: str) -> int | None:
    """Return the id of the erased user whom a link calls so; None where it has an alias."""
    return int(alias.removeprefix(_MARK)) if alias.startswith(_MARK) else None


def shown(alias: str) -> str:
    """Return how what a link calls a user is shown."""
    return alias if id_of_mark(alias) is None else ERASED_ALIAS


class State(StrEnum):
    """What is to become of the latest identity; see `docs/architecture.md` for the table."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ACKNOWLEDGING = "acknowledging"
    ACKNOWLEDGED = "acknowledged"
    HELD = "held"
    FAILED = "failed"
    AWAITING_HASH = "awaiting_hash"
    """Cloud API: one message without a hash is approved; the status about it has the new hash."""


OPEN_STATES = frozenset({State.ACKNOWLEDGED, State.AWAITING_HASH})
"""The states of an identity that let messages through."""


class Kind(StrEnum):
    """The two things that are asked of a WhatsApp client about an identity."""

    ACKNOWLEDGE = "acknowledge"
    ASK = "ask"


@dataclass(slots=True)
class Work:
    """A row of the outbox: something to be done with a WhatsApp client, and how it goes.

    `begun` says that a PUT was to be sent, and may have reached the client: a GET comes first.
    `request_id` is of the callback or request that brought it about, `refusals` counts the tries
    that ended in a 4xx. Times are Unix milliseconds.
    """

    kind: Kind
    due_at: int
    hash: str | None = None
    reason: str = ""
    request_id: str | None = None
    attempts: int = 0
    refusals: int = 0
    begun: bool = False
    holder: str | None = None
    lease_until: int | None = None

    def is_leased(self, now: int) -> bool:
        """Return whether somebody holds an unexpired lease on it."""
        return self.holder is not None and self.lease_until is not None and self.lease_until > now

    def held_by(self, holder: str, now: int) -> bool:
        """Return whether this holder may still write its result."""
        return self.holder == holder and self.is_leased(now)

    def prolong(self, now: int) -> None:
        """Let the lease last as long from now on as a new one."""
        self.lease_until = now + LEASE_MS

    def later(self, due_at: int) -> None:
        """End the lease after a try, and have it tried again at this time."""
        self.attempts += 1
        self.due_at = due_at
        self.release()

    def release(self) -> None:
        """End the lease."""
        self.holder = None
        self.lease_until = None


@dataclass(slots=True)
class Identity:
    """The latest identity of a user: which hash it is, what becomes of it, what is under way.

    It exists before any hash is known: the client may be asked (`ask`) about a user of whom nothing
    is known yet, and a failed message may close the gate (`blocked_since`). `latest` is None until
    a hash, or a change to an unknown one, was seen; from then on there is a `state` too.
    `version` counts the changes, so that an answer to an older question can be recognized. `work`
    is the acknowledging that is under way, `due_at` when a scheduled one begins; `attempts` and
    `last_error` are those of the last one. `after_hold` says that an identity before was held and
    nobody has decided since, `disputed` that the order of the two latest hashes is unknown. The
    client has confirmed the hash at `confirmed_at`, and was asked at `checked_at`. Times are Unix
    milliseconds.
    """

    latest: Change | None = None
    state: State | None = None
    version: int = 0
    updated_at: int | None = None
    due_at: int | None = None
    attempts: int = 0
    last_error: str | None = None
    after_hold: bool = False
    disputed: bool = False
    confirmed_at: int | None = None
    checked_at: int | None = None
    blocked_since: int | None = None
    work: Work | None = None
    ask: Work | None = None

    @property
    def is_held(self) -> bool:
        """Whether a person chose to keep the block, and nobody decided otherwise since.

        That goes beyond the state: after a held identity every later change waits for a person.
        Otherwise two quick changes would undo a person's hold.
        """
        return self.state is State.HELD or self.after_hold


@dataclass(frozen=True, slots=True)
class Link:
    """Another user who has to do with this one by a number, and since when.

    After a number change the `successor` is the same person under the new number, the `predecessor`
    under the old one. Where a wa_id came with another user id (Cloud API), the `former_owner` is
    who had it before, the `next_owner` who has it since: somebody else, as far as anybody knows.
    `alias` is the other's wa_id, on the Cloud API a user id where no wa_id is known.
    """

    alias: str
    relation: Literal["successor", "predecessor", "former_owner", "next_owner"]
    since: Moment


By = dict[str, str]
"""Who decided: `kind` is policy, key or client; `name` where there is one; `on_behalf_of`."""
BY_CLIENT: By = {"kind": "client"}


def by_policy(name: str) -> By:
    """Return a policy, or a rule of it, as the decider."""
    return {"kind": "policy", "name": name}


def by_key(name: str, on_behalf_of: str | None = None) -> By:
    """Return an API key as the decider, and the person it speaks for."""
    return on_behalf({"kind": "key", "name": name}, on_behalf_of)


def on_behalf(by: By, person: str | None) -> By:
    """Return a decider with the person for whom it decides, where there is one."""
    return by if person is None else by | {"on_behalf_of": person}


def by_person(name: str) -> By:
    """Return a person as the decider, whom a proxy in front of the console named."""
    return {"kind": "person", "name": name}


class AuditEntry(NamedTuple):
    """What happened to an identity, by whom and why. Entries are only ever added.

    `request_id` is of the callback or the request that brought it about.
    """

    at: int
    event: str
    hash: str | None = None
    by: By | None = None
    reason: str | None = None
    note: str | None = None
    evidence: Mapping[str, str] | None = None
    request_id: str | None = None


class Context(NamedTuple):
    """What the rules need besides the user.

    `now` is the time (Unix ms); `arrived` when the callback came in, which is earlier where one
    is replayed; `chance` between 0 and 1 spreads the retries; `request_id` of what brought it.
    `told` takes the events for the event log; None where there is none.
    """

    now: int
    policies: Policies
    arrived: int
    chance: float = 0.5
    request_id: str | None = None
    told: list[LoggedEvent] | None = None

    def entry(
        self,
        event: str,
        hash: str | None = None,  # noqa: A002 -- named as in the entry
        by: By | None = None,
        reason: str | None = None,
        note: str | None = None,
        evidence: Mapping[str, str] | None = None,
    ) -> AuditEntry:
        """Return an audit entry of what happens now."""
        return AuditEntry(self.now, event, hash, by, reason, note, evidence, self.request_id)


@dataclass(slots=True)
class User:
    """One person at one WhatsApp account, with what is known of the identity.

    The rules change it in memory, and the store finds out what they changed. `history` holds the
    newest thousand entries at most: so a user who is flooded with changes does not slow the others
    down. `blocked_ids` are the failed messages (480, 137000) that have taken effect, `audit` the
    entries to be added to the audit trail. On the Cloud API there may be a `user_id`, or that
    alone; `named_at` is when both were last used together, `merged_into` the user that this one
    turned out to be. Since `owner_since` it is known who has the number, see `moved_to`. At
    `erased_at` the user was erased, and has no names since, or somebody was who had a name of this
    user's before. Times are Unix milliseconds.
    """

    id: int
    account: str
    wa_id: str | None
    created_at: int
    identity: Identity = field(default_factory=Identity)
    history: list[Change] = field(default_factory=list)
    blocked_ids: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    wrote_at: int | None = None
    user_id: str | None = None
    named_at: int | None = None
    merged_into: int | None = None
    owner_since: int | None = None
    erased_at: int | None = None
    audit: list[AuditEntry] = field(default_factory=list)

    @property
    def alias(self) -> str:
        """What the user is called: by the wa_id where there is one."""
        return self.wa_id or self.user_id or ""

    @property
    def hash(self) -> str | None:
        """The latest hash; None too where a change is known and its hash is not (Cloud API)."""
        return None if self.identity.latest is None else self.identity.latest.hash

    @property
    def moved_to(self) -> Link | None:
        """The number that the user has now."""
        return moved_to(self.links, self.owner_since)

    def touch(self, now: int) -> None:
        """Date a change that readers see."""
        self.identity.updated_at = now

    def record(self, entry: AuditEntry) -> None:
        """Add an entry to the audit trail."""
        self.audit.append(entry)


def moved_to(links: Sequence[Link], owner_since: int | None) -> Link | None:
    """Return the number that a user has now; None where it is still the same.

    A callback that says that somebody has this number again does not end a move, and nor does a
    policy: a person or the client must have acknowledged an identity that came after the move.
    `owner_since` (Unix ms) is when the newest such identity came, so that it does not matter when
    the move itself is reported.
    """
    return newest_link(standing_moves(links, owner_since), "successor")


def standing_moves(links: Sequence[Link], owner_since: int | None) -> list[Link]:
    """Return the moves to another number after which nobody is known to have this one."""
    known = -1 if owner_since is None else owner_since
    return [x for x in links if x.relation == "successor" and known <= x.since.until]


def newest_link(links: Sequence[Link], relation: str) -> Link | None:
    """Return the newest link of a kind."""
    found = [link for link in links if link.relation == relation]
    return max(found, key=lambda link: link.since.at, default=None)
