"""The kinds of problems: what each `type` means, and what to do about it.

`/docs/problems` shows them, `docs/problems.md` has the same, and `docs/openapi.json` has an example
of each.
"""

from typing import NamedTuple

PAGE = "/docs/problems"


class ProblemKind(NamedTuple):
    """A kind of problem: its status, what it means, and what the caller can do about it."""

    status: int
    meaning: str
    cure: str


KINDS: dict[str, ProblemKind] = {
    "not_json": ProblemKind(
        400,
        "The body is not JSON",
        "Send JSON in UTF-8, whole, and not compressed.",
    ),
    "broken_off": ProblemKind(400, "The body broke off", "Repeat the request with all of it."),
    "no_key": ProblemKind(
        401,
        "An API key is needed",
        "Send `Authorization: Bearer KEY` with a key of the configuration.",
    ),
    "wrong_signature": ProblemKind(
        401,
        "The signature is missing or wrong",
        "Sign the bytes of the body with the secret of the app, in `X-Hub-Signature-256`.",
    ),
    "role_too_low": ProblemKind(
        403, "The role of the key is too low", "Use a key with the role that `detail` names."
    ),
    "not_local": ProblemKind(
        403,
        "Only this machine is answered",
        "Configure an API key. Until then only direct requests from this machine are answered.",
    ),
    "verification_refused": ProblemKind(
        403,
        "The verification request is refused",
        "Enter the same verify token in the app's settings at Meta as in the configuration.",
    ),
    "nothing_here": ProblemKind(
        404, "There is nothing at this path", "Look the path up in the description of the API."
    ),
    "no_such_account": ProblemKind(
        404, "There is no such account", "Use a name that `GET /api/v1/accounts` lists."
    ),
    "no_client": ProblemKind(
        404,
        "The account has no client",
        "It is an account of the Cloud API, where there is no client to ask: leave the call out.",
    ),
    "no_identity": ProblemKind(
        404,
        "There is no identity of this user",
        "Nothing to do: no change of the user's identity is known, so none closes the gate.",
    ),
    "other_spelling": ProblemKind(
        404,
        "Only another spelling of the number is known",
        "If it is the user you mean, repeat the request with the alias in `other_spelling`.",
    ),
    "not_blocked": ProblemKind(
        404, "The user is not blocked", "Nothing to do: there is no block to end."
    ),
    "no_such_issue": ProblemKind(
        404, "There is no such issue", "Use a code, account and subject of `GET /api/v1/issues`."
    ),
    "no_such_relay": ProblemKind(
        404, "There is no such relay", "Use a name that `GET /api/v1/relays` lists."
    ),
    "no_such_delivery": ProblemKind(
        404,
        "There is no such delivery",
        "Use an id that `GET /api/v1/relays/{relay}/deliveries` lists; it may be delivered by now.",
    ),
    "no_such_entry": ProblemKind(
        404,
        "There is no such entry in the journal",
        "Use an id of `GET /api/v1/journal`; entries are deleted once they are old enough.",
    ),
    "wrong_method": ProblemKind(
        405, "The path has no such method", "Use one of the methods in the header `Allow`."
    ),
    "too_slow": ProblemKind(
        408, "The body took too long", "Repeat the request, and send its body at once."
    ),
    "another_hash": ProblemKind(
        409,
        "Another hash is the latest",
        "Look at the Identity in `identity`, and decide about its hash.",
    ),
    "too_late": ProblemKind(
        409,
        "It is too late to hold",
        "The identity is acknowledged, or is being acknowledged now: block the user instead.",
    ),
    "several_users": ProblemKind(
        409,
        "The number may mean several users",
        "Repeat the request with one of the aliases in `candidates`.",
    ),
    "not_acknowledged": ProblemKind(
        409,
        "The identity was not acknowledged",
        "The client refused it, or somebody held it: `identity` tells which.",
    ),
    "issue_stands": ProblemKind(
        409, "The cause of the issue is there", "Cure it, and the issue ends by itself."
    ),
    "too_large": ProblemKind(
        413, "The body is too large", "Send less at once: at most 1 MiB, or 1,000 items."
    ),
    "unknown_expectation": ProblemKind(
        417, "The expectation is not known", "Send no `Expect` other than `100-continue`."
    ),
    "not_valid": ProblemKind(
        422, "The request is not valid", "Correct the fields that `errors` names."
    ),
    "over_budget": ProblemKind(
        429,
        "The budget of contact checks does not suffice",
        "Check fewer numbers, or write to those that were checked; `detail` says what is left.",
    ),
    "over_rate": ProblemKind(
        429, "The client takes no more requests now", "Try again after `Retry-After`."
    ),
    "internal": ProblemKind(
        500, "The service failed", "Report it, with the `request_id`: the log tells more."
    ),
    "client_failed": ProblemKind(
        502,
        "The client gave no usable answer",
        "Is the client running, and its login right? `GET /api/v1/issues` tells. Then try again.",
    ),
    "unavailable": ProblemKind(
        503, "The service can't store or read now", "Try again after `Retry-After`."
    ),
    "client_too_slow": ProblemKind(
        504, "The client did not answer in time", "Try again; the client may be overloaded."
    ),
}

USUAL: dict[int, str] = {
    400: "not_json",
    401: "no_key",
    403: "role_too_low",
    404: "nothing_here",
    405: "wrong_method",
    408: "too_slow",
    409: "another_hash",
    413: "too_large",
    417: "unknown_expectation",
    422: "not_valid",
    429: "over_rate",
    500: "internal",
    502: "client_failed",
    503: "unavailable",
    504: "client_too_slow",
}
"""The kind of a problem for which only the status is given."""


def type_of(kind: str) -> str:
    """Return the `type` of a kind, a URI reference that leads to its explanation."""
    return f"{PAGE}#{kind}"
