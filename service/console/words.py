"""What states, reasons and events are called where people read them who are no engineers."""

import re
from collections.abc import Mapping

from service.model.users import Link, State, User, shown

STATES: Mapping[State, str] = {
    State.PENDING: "Waits for you",
    State.HELD: "Held",
    State.FAILED: "Failed",
    State.SCHEDULED: "Will be let through",
    State.ACKNOWLEDGING: "Being let through",
    State.AWAITING_HASH: "One message may go",
    State.ACKNOWLEDGED: "Let through",
}

EXPLAINED: Mapping[State, str] = {
    State.PENDING: "The identity behind this number changed: a new phone, WhatsApp installed "
    "again, or somebody else has the number now. Messages are held back until somebody decides.",
    State.HELD: "Somebody decided to keep this number blocked. You can still acknowledge it.",
    State.FAILED: "It was acknowledged, but WhatsApp refused that for good. Try once more, or "
    "keep it blocked.",
    State.SCHEDULED: "A rule will acknowledge the change by itself when its time comes, unless you "
    "hold it before.",
    State.ACKNOWLEDGING: "It is decided. WhatsApp is being told, and messages pass once it agrees.",
    State.AWAITING_HASH: "One message may be sent. Its delivery tells the new identity, which is "
    "trusted then.",
    State.ACKNOWLEDGED: "Messages to this number pass.",
}

REASONS: Mapping[str, str] = {
    "identity_pending": "The identity changed, and nobody has decided yet.",
    "identity_scheduled": "The identity changed; a rule lets it through when its time comes.",
    "identity_acknowledging": "The change is decided, and WhatsApp is being told.",
    "identity_held": "The identity changed, and somebody decided to keep the number blocked.",
    "identity_failed": "The identity changed; it was acknowledged, but WhatsApp refused that.",
    "send_blocked": "WhatsApp refused a message because the identity changed. It is being asked.",
    "number_changed": "The person has another number now.",
    "blocked": "Somebody here blocked the number.",
    "contact_invalid": "A check found that the number is not on WhatsApp.",
    "contact_unknown": "Nothing is known of this number yet: nobody wrote from it.",
    "contact_stale": "It is long ago that the number was last seen on WhatsApp.",
    "other_spelling": "The number is known in another spelling only.",
    "account_unreachable": "WhatsApp does not answer at the moment.",
    "catching_up": "The service was away for a while, and news of that time may still arrive.",
    "unverified": "The database was restored, and WhatsApp was not yet asked about this number.",
    "account_unverified": "The database was restored, and WhatsApp was not yet asked about "
    "everybody.",
    "erased": "What was known of this person was erased while the number was blocked.",
}

EVENTS: Mapping[str, str] = {
    "changed": "The identity changed",
    "first_use": "First seen, and trusted as the first",
    "merged": "Two entries turned out to be one person",
    "user_id_changed": "WhatsApp gave the person another user id",
    "alias_moved": "The number went to somebody else",
    "clock_skew": "WhatsApp dated this in the future; the time of arrival counts",
    "superseded": "A later change took its place",
    "decided": "Acknowledged",
    "held": "Held",
    "acknowledged": "Let through: messages pass",
    "failed": "WhatsApp refused the acknowledgement for good",
    "pending": "Waits for a person",
    "send_blocked": "WhatsApp refused a message",
    "number_changed": "The person changed the number",
    "blocked": "Blocked by hand",
    "unblocked": "Block ended",
    "restored": "The database was restored",
    "verified": "Checked with WhatsApp after a restore",
    "erased": "Erased",
    "exported": "Exported",
    "policy_changed": "The policy changed",
    "audit_deleted": "Old entries of the audit trail were deleted",
    "replayed": "A callback was read again",
    "issue_dismissed": "An issue was dismissed",
    "relay_paused": "A relay was paused",
    "relay_resumed": "A relay was resumed",
    "relay_replayed": "A relay sends once more",
    "deliveries_retried": "Deliveries were tried again",
}

LINKS: Mapping[str, str] = {
    "successor": "The person took another number since",
    "predecessor": "The person had another number before",
    "former_owner": "Somebody else had this number before",
    "next_owner": "Somebody else has this number since",
}


def state_of(state: State | None) -> str:
    """Return what a state is called."""
    return "No change known" if state is None else STATES[state]


def event_of(event: str) -> str:
    """Return what an entry of the audit trail is called; a new one by its own name."""
    return EVENTS.get(event, event.replace("_", " ").capitalize())


def reason_of(code: str) -> str:
    """Return a reason of the gate as a sentence; a new one by its own name."""
    return REASONS.get(code, code.replace("_", " ").capitalize() + ".")


def number_of(user: User) -> str:
    """Return the number as people write it, or the user id where there is none."""
    return f"+{user.wa_id}" if user.wa_id and user.wa_id.isdigit() else user.alias


def linked(link: Link) -> str:
    """Return how another user has to do with one."""
    return LINKS[link.relation]


def linked_name(link: Link) -> str:
    """Return what the other user is called."""
    return shown(link.alias)


def why(user: User) -> str:
    """Return in a sentence why somebody is where they are, as far as the latest identity tells."""
    identity = user.identity
    if identity.state is None:
        return "No change of identity is known."
    relations = {link.relation for link in user.links}
    if identity.state in {State.PENDING, State.HELD} and "former_owner" in relations:
        return "Somebody else had this number before. Find out who has it now."
    return _why_undecided(user) if identity.state is State.PENDING else EXPLAINED[identity.state]


def _why_undecided(user: User) -> str:
    identity = user.identity
    if user.moved_to is not None:
        return "The person took another number, and somebody is seen at the old one again."
    if identity.disputed:
        return "Two identities were seen at about the same time, and which is newer is unclear."
    if user.hash is None:
        return "WhatsApp refused a message because the identity changed. The new one is not known."
    if identity.after_hold and user.erased_at is not None:
        return "What was known of this person was erased, so nobody can say if anything changed."
    if identity.after_hold:
        return "An earlier change was held, so every later one waits for you as well."
    return "New phone, WhatsApp installed again, or a new owner of the number."


_BY_RULE = re.compile(r"policy (\w+): (manual|auto)")
_LEAVES = {"manual": "leaves it to a person", "auto": "lets it through"}


def grounds_of(reason: str | None) -> str:
    """Return the reason of an entry of the audit trail in words for people."""
    found = _BY_RULE.fullmatch(reason or "")
    if found is not None:
        return f"the rule {found[1]} {_LEAVES[found[2]]}"
    return "" if reason in {None, "superseded"} else str(reason)


BY = {"policy": "the rule", "key": "the key", "person": "", "client": "WhatsApp"}


def decider(by: Mapping[str, str] | None) -> str:
    """Return who decided."""
    if by is None:
        return ""
    name = f"{BY.get(by['kind'], by['kind'])} {by.get('name', '')}".strip()
    person = by.get("on_behalf_of")
    return name if person is None else f"{person}, by {name}"
