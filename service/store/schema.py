"""The tables, the same for every database."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

Big = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("first_callback_at", Big),
    Column("last_callback_at", Big),
    Column("policy", Text),
    Column("unverified_since", Big),
)
"""What is known of an account besides its configuration; `policy` as it was at the last start.

`unverified_since` is set by a restore, until the client was asked about every user in `unverified`.
"""

journal = Table(
    "journal",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("received_at", Big, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("content_type", Text, nullable=False),
    Column("content_encoding", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("replayed_at", Big),
    Column("request_id", Text),
)
"""Every callback, as it came over the wire."""

Index("ix_journal_account_state_id", journal.c.account, journal.c.state, journal.c.id)

Index(
    "ix_journal_quarantined",
    journal.c.id,
    sqlite_where=text("state = 'quarantined'"),
    postgresql_where=text("state = 'quarantined'"),
)

users = Table(
    "users",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("wa_id", Text, nullable=False),
    Column("created_at", Big, nullable=False),
    Column("wrote_at", Big),
    Column("links", Text),
    Column("blocked_since", Big),
    Column("blocked_ids", Text),
    Column("hash", Text),
    Column("changed_at", Big),
    Column("changed_precision", Integer),
    Column("received_at", Big),
    Column("seen", Text),
    Column("claims", Text),
    Column("state", Text),
    Column("version", Integer, nullable=False),
    Column("updated_at", Big),
    Column("due_at", Big),
    Column("decided_by", Text),
    Column("decided_at", Big),
    Column("acknowledged_at", Big),
    Column("confirmed_at", Big),
    Column("checked_at", Big),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("after_hold", Boolean, nullable=False),
    Column("disputed", Boolean, nullable=False),
    Column("history_count", Integer, nullable=False),
    Column("has_work", Boolean, nullable=False),
    Column("has_ask", Boolean, nullable=False),
    Column("user_id", Text),
    Column("named_at", Big),
    Column("merged_into", Big),
    Column("owner_since", Big),
    Column("erased_at", Big),
)
"""The users of every account, each with its latest identity, where it has one.

`wa_id` is empty where a user is known by a user id alone. An identity whose hash is not known yet
(Cloud API) has a state and no hash; in the history its hash is empty. Of whom was erased, at
`erased_at` (Unix ms), nothing is kept that names them.
"""

user_ids = Sequence("user_ids", increment=10_000, metadata=metadata)
"""The ids of users, on PostgreSQL; on SQLite the one process counts."""

MERGED = "merged_into IS NOT NULL"

Index(
    "ix_users_merged",
    users.c.merged_into,
    sqlite_where=text(MERGED),
    postgresql_where=text(MERGED),
)

for _order in (users.c.changed_at, users.c.updated_at):
    Index(
        f"ix_users_account_state_{_order.name}_id",
        users.c.account,
        users.c.state,
        _order,
        users.c.id,
    )

UNSETTLED = "state IN ('pending', 'held', 'failed')"

Index(
    "ix_users_unsettled",
    users.c.account,
    users.c.checked_at,
    sqlite_where=text(UNSETTLED),
    postgresql_where=text(UNSETTLED),
)

CLOSED = (
    "state NOT IN ('acknowledged', 'awaiting_hash') "
    "OR blocked_since IS NOT NULL OR links IS NOT NULL OR user_id IS NOT NULL "
    "OR (state IS NULL AND wrote_at IS NULL AND checked_at IS NULL)"
)
"""Users of whom the gate may have more to tell than that they are known, by their wa_id.

Release 0.1.0 names their index in a statement, so it stays for as long as that may run again.
"""

Index("ix_users_closed", users.c.id, sqlite_where=text(CLOSED), postgresql_where=text(CLOSED))

aliases = Table(
    "aliases",
    metadata,
    Column("account", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("user_id", Big, ForeignKey("users.id"), nullable=False),
    sqlite_with_rowid=False,
)
"""What a user is called: a wa_id, on the Cloud API also user ids. Old ones stay."""

Index("ix_aliases_user_id", aliases.c.user_id)

changes = Table(
    "changes",
    metadata,
    Column("id", Big, primary_key=True),
    Column("user_id", Big, ForeignKey("users.id"), nullable=False),
    Column("hash", Text, nullable=False),
    Column("first_at", Big, nullable=False),
    Column("changed_at", Big, nullable=False),
    Column("changed_precision", Integer, nullable=False),
    Column("received_at", Big, nullable=False),
    Column("seen", Text, nullable=False),
    Column("claims", Text),
    Column("outcome", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Big),
    Column("acknowledged_at", Big),
)
"""The history: the changes that are not the latest."""

Index("ix_changes_user_id_first_at", changes.c.user_id, changes.c.first_at)

audit = Table(
    "audit",
    metadata,
    Column("id", Big, primary_key=True),
    Column("account", Text),
    Column("user_id", Big, ForeignKey("users.id")),
    Column("at", Big, nullable=False),
    Column("event", Text, nullable=False),
    Column("hash", Text),
    Column("decided_by", Text),
    Column("reason", Text),
    Column("note", Text),
    Column("evidence", Text),
    Column("request_id", Text),
    Column("salt", LargeBinary),
    Column("digest", LargeBinary),
)
"""The audit trail. Rows are only ever added; see `trail.py` for `salt`, `digest`, and erased rows.

SQLite gives their ids; PostgreSQL has no default for them, as for those of the other logs.
"""

Index("ix_audit_user_id", audit.c.user_id)

Index("ix_audit_account_event_id", audit.c.account, audit.c.event, audit.c.id)

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("at", Big, nullable=False),
    Column("last_id", Big, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    Column("deleted_at", Big),
)
"""A seal for each range of the audit trail, which ends with the entry `last_id`; see `trail.py`.

`id` counts them. A range with `deleted_at` (Unix ms) was too old; of those the last one stays.
"""

erased_aliases = Table(
    "erased_aliases",
    metadata,
    Column("account", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("user_id", Big, ForeignKey("users.id"), nullable=False),
    sqlite_with_rowid=False,
)
"""What erased users were called, as an HMAC with a secret of the installation."""

Index("ix_erased_aliases_user_id", erased_aliases.c.user_id)

Index("ix_erased_aliases_digest", erased_aliases.c.digest)

erasures = Table(
    "erasures",
    metadata,
    Column("user_id", Big, ForeignKey("users.id"), primary_key=True, autoincrement=False),
    Column("names", Text, nullable=False),
    Column("asked_at", Big, nullable=False),
)
"""Erasures that have begun and not ended: by which names, a JSON list, the logs are searched."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", Big, primary_key=True),
    Column("account", Text, nullable=False),
    Column("user_id", Big, ForeignKey("users.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("due_at", Big, nullable=False),
    Column("hash", Text),
    Column("reason", Text, nullable=False),
    Column("request_id", Text),
    Column("attempts", Integer, nullable=False),
    Column("refusals", Integer, nullable=False),
    Column("begun", Boolean, nullable=False),
    Column("holder", Text),
    Column("lease_until", Big),
    UniqueConstraint("user_id", "kind"),
)
"""Leased work: what is to be done with a WhatsApp client."""

Index("ix_outbox_account_kind_due_at", outbox.c.account, outbox.c.kind, outbox.c.due_at)

LEASED = "lease_until IS NOT NULL"

Index(
    "ix_outbox_leased",
    outbox.c.account,
    outbox.c.kind,
    outbox.c.lease_until,
    sqlite_where=text(LEASED),
    postgresql_where=text(LEASED),
)

contacts = Table(
    "contacts",
    metadata,
    Column("id", Big, primary_key=True),
    Column("account", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("wa_id", Text),
    Column("status", Text, nullable=False),
    Column("checked_at", Big, nullable=False),
    Column("digests", Text, nullable=False),
    Column("canonical", Text),
    Column("asked_at", Big),
    Column("due_at", Big),
    Column("attempts", Integer),
    Column("forced", Boolean),
    Column("opt_in_at", Big),
    Column("opt_in_how", Text),
    Column("written_at", Big),
    Column("answered_at", Big),
    UniqueConstraint("account", "input"),
)
"""The newest result of every contact check, by its literal input, and the check that is open.

`canonical` is the number's one form, empty where it has none, null until somebody looked. From
`due_at` to `forced` it is null while no check is open; `asked_at` then is when one was asked for in
vain, since the result. `written_at` is when the business last
wrote, to within some hours; `answered_at` when the client last answered a check that was asked for.
"""

Index(
    "ix_contacts_newest",
    contacts.c.account,
    contacts.c.wa_id,
    contacts.c.checked_at,
    contacts.c.status,
)

Index("ix_contacts_account_id", contacts.c.account, contacts.c.id)

Index("ix_contacts_account_wa_id_id", contacts.c.account, contacts.c.wa_id, contacts.c.id)

Index("ix_contacts_account_canonical", contacts.c.account, contacts.c.canonical)

OPEN_CHECK = "due_at IS NOT NULL"

Index(
    "ix_contacts_open",
    contacts.c.account,
    contacts.c.due_at,
    sqlite_where=text(OPEN_CHECK),
    postgresql_where=text(OPEN_CHECK),
)

VALID = "status = 'valid'"

Index(
    "ix_contacts_valid",
    contacts.c.account,
    contacts.c.checked_at,
    contacts.c.id,
    sqlite_where=text(VALID),
    postgresql_where=text(VALID),
)

contact_days = Table(
    "contact_days",
    metadata,
    Column("account", Text, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("checks", Integer, nullable=False),
    Column("forced", Integer, nullable=False),
    Column("sent", Integer, nullable=False),
    Column("delivered", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""What the budget of contact checks goes by: numbers checked and messages, by UTC day (of 1970)."""

message_recipients = Table(
    "message_recipients",
    metadata,
    Column("account", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("alias", Text, nullable=False),
    Column("at", Big, nullable=False),
    sqlite_with_rowid=False,
)
"""For whom a message was, where its id does not tell: a later status may name nobody."""

Index("ix_message_recipients_at", message_recipients.c.at)

idempotency = Table(
    "idempotency",
    metadata,
    Column("account", Text, primary_key=True),
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("created_at", Big, nullable=False),
    Column("answer", Text),
)
"""Requests that named an Idempotency-Key, and what they were answered."""

Index("ix_idempotency_created_at", idempotency.c.created_at)

blocks = Table(
    "blocks",
    metadata,
    Column("user_id", Big, ForeignKey("users.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", Big, nullable=False),
    Column("until", Big),
    Column("decided_by", Text, nullable=False),
)
"""The users whom a person has blocked, with no identity change at hand; some until a time."""

ENDS = "until IS NOT NULL"

Index("ix_blocks_until", blocks.c.until, sqlite_where=text(ENDS), postgresql_where=text(ENDS))

dismissals = Table(
    "dismissals",
    metadata,
    Column("account", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("journal_id", Big, nullable=False),
    Column("at", Big, nullable=False),
    sqlite_with_rowid=False,
)
"""The issues that a person dismissed, up to a callback: what came after it is an issue again.

`account` as the journal calls it; `subject` is empty where the issue has none.
"""

relays = Table(
    "relays",
    metadata,
    Column("name", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("position", Big, nullable=False),
    Column("read_up_to", Big, nullable=False),
    Column("undone", Text, nullable=False),
    Column("paused_by", Text),
    Column("last_delivered_at", Big),
    Column("skipped", Big, nullable=False),
    Column("resumed_at", Big),
    sqlite_with_rowid=False,
)
"""How far each relay has come: up to `position` everything is delivered, or has a row below.

So it is up to `read_up_to`, but for the ids in `undone`; that spares a destination repetitions.
`paused_by` is who or what paused it, `skipped` how many rows of the log it lost to retention.
`resumed_at` is when (Unix ms) a person last had it send.
"""

deliveries = Table(
    "deliveries",
    metadata,
    Column("relay", Text, primary_key=True),
    Column("id", Big, primary_key=True),
    Column("log_id", Big, nullable=False),
    Column("replay", Big, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Big, nullable=False),
    Column("gives_up_at", Big),
    Column("kinds", Text, nullable=False),
    Column("names", Text, nullable=False),
    Column("is_of_one", Boolean, nullable=False),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("answer", Text),
    Column("retry_asked", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,
)
"""What a relay could not deliver while others passed; see `service.model.relays`.

`retry_asked` is what a person asks of the leader, which tries such a row again and notes that.
"""

Index(
    "ix_deliveries_retry_asked",
    deliveries.c.relay,
    deliveries.c.id,
    sqlite_where=text("retry_asked"),
    postgresql_where=text("retry_asked"),
)

relay_replays = Table(
    "relay_replays",
    metadata,
    Column("id", Big, primary_key=True),
    Column("relay", Text, nullable=False),
    Column("position", Big, nullable=False),
    Column("until_id", Big, nullable=False),
    Column("requested_at", Big, nullable=False),
)
"""What is to be sent once more: the rows of a log after `position`, up to an id."""

events = Table(
    "events",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("at", Big, nullable=False),
    Column("account", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("names", Text, nullable=False),
    Column("data", Text, nullable=False),
)
"""The event log: what is told to others, in the order of commits; see `model/event_log.py`.

`account` is named as in the journal, and empty where there is none. `names` is a JSON list of what
the user is called, `data` the Identity, Contact or Issue as it was. Rows are only ever added, and
deleted once they are old.
"""

raised_issues = Table(
    "raised_issues",
    metadata,
    Column("account", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""The issues that the event log has raised and not cleared, so that a restart tells none again.

`account` as the journal calls it; `subject` is empty where the issue has none; `data` is the Issue.
"""

alerted_issues = Table(
    "alerted_issues",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""The issues that each destination of alerts was told of, and not yet that they are gone.

`destination` is a digest of its URL; the others are as in `raised_issues`.
"""

unverified = Table(
    "unverified",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Big, ForeignKey("users.id"), primary_key=True),
    Column("wanted_at", Big),
    sqlite_with_rowid=False,
)
"""The users whom the client is still to be asked about, since the database was restored.

`wanted_at` is when the gate was asked about one: they come first.
"""

Index(
    "ix_unverified_wanted",
    unverified.c.wanted_at,
    sqlite_where=text("wanted_at IS NOT NULL"),
    postgresql_where=text("wanted_at IS NOT NULL"),
)

points = Table(
    "points",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("at", Big, primary_key=True, autoincrement=False),
    Column("series", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("times", Big, nullable=False),
    Column("total", Big, nullable=False),
    Column("longest", Big, nullable=False),
    sqlite_with_rowid=False,
)
"""The points of the charts; see `model/points.py`. They are deleted once no chart shows them."""

leadership = Table(
    "leadership",
    metadata,
    Column("term", Big, primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=False),
    Column("until", Big, nullable=False),
)
"""Its one row says which replica leads, until when (Unix ms) unless it stays; see `replicas.py`.

A term is the time in which one replica leads; each new leader begins the next.
"""

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seen_at", Big, nullable=False),
    Column("report", Text, nullable=False),
)
"""The replicas that work on the database, with what each tells the others, a JSON document."""

installation = Table(
    "installation",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""What the database says of itself, by key.

`oldest_migration` is what a release must know to run on it. `epoch` is another one whenever the ids
of the event log may begin anew: after a restore, and in another database. `events_deleted` is the
id up to which old events were deleted. `points` is how far the logs are in the table `points`.
"""
