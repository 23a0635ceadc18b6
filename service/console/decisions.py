"""What the forms of a decision say: about whom, which, and on what grounds; and bulk decisions.

A decision about many goes in steps. Each step decides about a few and answers with its progress and
a form of the rest, which the page sends by itself, or a person does with a button. So there is
nothing to keep on the server, and what is done is done wherever the browser is closed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp import web
from pydantic import ValidationError

from service.api.identities import DecisionItem, Evidence, Grounds, decide_many
from service.api.problems import ProblemError, field_problem, from_validation
from service.api.schemas import DecidedIdentity
from service.console.browser import wants_fragment
from service.console.forms import Form, read_form, text_of
from service.console.pages import fragment, page
from service.model.decisions import Verb

STEP = 20
"""So many are decided about in one request."""
MAX_SELECTED = 1_000
DONE = {Verb.ACKNOWLEDGE: "acknowledged", Verb.HOLD: "held"}


class Kept(NamedTuple):
    """What a person wrote into a form, to be shown again."""

    note: str = ""
    method: str = ""
    reference: str = ""


class Refused(NamedTuple):
    """One of many about whom nothing was decided, and why."""

    account: str
    user: str
    why: str


class Progress(NamedTuple):
    """How far a decision about many has come."""

    verb: Verb
    total: int
    done: int
    refused: Sequence[Refused]
    rest: Sequence[str]

    @property
    def looked_at(self) -> int:
        """How many it was tried about."""
        return self.total - len(self.rest)


def verb_of(form: Form) -> Verb:
    """Return the decision that a form is for; raise a 422 for none."""
    try:
        return Verb(text_of(form, "verb"))
    except ValueError:
        raise field_problem(("verb", "must be acknowledge or hold")) from None


def kept_of(form: Form) -> Kept:
    """Return the grounds as they were written."""
    return Kept(*(text_of(form, name).strip() for name in Kept._fields))


def grounds_of(kept: Kept) -> Grounds:
    """Return the grounds of a decision; raise a 422 where one half of the evidence is missing."""
    if bool(kept.method) != bool(kept.reference):
        missing = "reference" if kept.method else "method"
        raise field_problem((missing, "is missing: say both how, and where it is recorded"))
    try:
        return Grounds(
            note=kept.note or None,
            evidence=Evidence(method=kept.method, reference=kept.reference)
            if kept.method
            else None,
        )
    except ValidationError as error:
        raise from_validation(error) from None


def item_of(text: str) -> DecisionItem:
    """Return one of the selected: account, user and hash, with spaces between; raise a 422."""
    match text.split(" ", 2):
        case [account, user, hash_]:
            pass
        case [account, user]:
            hash_ = ""
        case _:
            raise field_problem(("item", "must name an account, a user and a hash"))
    try:
        return DecisionItem(account=account, user=user, hash=hash_ or None)
    except ValidationError:
        raise field_problem(("item", "must name an account, a user and a hash")) from None


async def decide_selected(request: web.Request) -> web.Response:
    """Decide about the next few of those selected, and show how far it has come."""
    form = await read_form(request)
    verb, kept = verb_of(form), kept_of(form)
    grounds = grounds_of(kept)
    selected = list(dict.fromkeys(form.get("item", ())))
    if not selected:
        raise field_problem(("item", "tick at least one"))
    if len(selected) > MAX_SELECTED:
        raise field_problem(("item", f"tick at most {MAX_SELECTED}"))
    refused = [_refused_of(text) for text in form.get("refused", ())]
    done = _count_of(form, "done")
    items = [item_of(text) for text in selected]
    decided = await decide_many(request, items[:STEP], verb, grounds)
    for one in decided:
        if "error" in one:
            refused.append(_why_not(one))
        else:
            done += 1
    rest = selected[STEP:]
    total = done + len(refused) + len(rest)
    progress = Progress(verb, total, done, refused, rest)
    values: dict[str, Any] = {"progress": progress, "kept": kept, "done": DONE[verb]}
    if wants_fragment(request):
        return fragment(request, "_bulk.html", **values)
    return page(request, "bulk.html", **values)


def _count_of(form: Form, name: str) -> int:
    text = text_of(form, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < len("10000") else 0


def _refused_of(text: str) -> Refused:
    parts = text.split(" ", 2)
    if len(parts) != len(Refused._fields):
        raise field_problem(("refused", "must name an account, a user and why"))
    return Refused(*parts)


def _why_not(one: DecidedIdentity) -> Refused:
    kind = str(one["error"]["type"]).rpartition("#")[2]
    why = _WHY.get(kind, one["error"]["detail"])
    return Refused(one["account"], one["user"], why)


_WHY = {
    "another_hash": "the identity changed again meanwhile; look at it anew",
    "too_late": "it is let through already, or is at this very moment",
    "no_identity": "no change of identity is known any more",
    "no_such_account": "there is no such account",
}


def why_refused(error: ProblemError) -> str:
    """Return why a decision was not taken, in words for people."""
    known = _WHY.get(error.kind or "", error.detail)
    return f"{known[:1].upper()}{known[1:]}."
