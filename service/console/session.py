"""Who is signed in: signing a session and the token of its forms, and reading them back.

A session is signed with a key that is made of two parts: a secret in the database, and the hash of
the API key in the configuration. So who reads only one of them can forge none, and a session ends
with its key. What a session may do is not in it: that is read from the settings each time.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Self

from itsdangerous import BadData, URLSafeSerializer

COOKIE = "ackgate_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""Browsers take it over TLS alone, and from this host alone."""
MAX_COOKIE = 1_024
RENEW_AFTER_MS = 60_000
"""A session is renewed by what a person does, but not written anew more often than this."""

_COOKIE = re.compile(r"([a-z0-9_]+)~([A-Za-z0-9._-]+)")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session holds, in milliseconds: without being used, and in all."""

    idle: int
    whole: int


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in with an API key: when it began, and when it was last used (Unix ms)."""

    key: str
    id: str
    began_at: int
    used_at: int

    @classmethod
    def begin(cls, key: str, now: int) -> Self:
        """Begin a session of the API key with this name."""
        return cls(key, token_urlsafe(12), now, now)

    def holds(self, now: int, lifetime: Lifetime) -> bool:
        """Return whether the session has not ended; one from the future never began."""
        used, began = now - self.used_at, now - self.began_at
        return 0 <= used < lifetime.idle and began < lifetime.whole

    def used(self, now: int) -> "Session":
        """Return the session as it is once somebody has done something in it."""
        return replace(self, used_at=now)


def key_of_session(secret: bytes, known_by: str) -> bytes:
    """Return what to sign with: made of the installation's secret and what the caller is known by.

    That is the SHA-256 of an API key as the configuration has it, or whom the proxy named.
    """
    return hmac.digest(secret, known_by.encode(), hashlib.sha256)


def written(session: Session, key: bytes) -> str:
    """Return the session as the value of a cookie."""
    signed = _cookies(key).dumps([session.id, session.began_at, session.used_at])
    return f"{session.key}~{signed}"


def key_named(cookie: str) -> str | None:
    """Return the name of the API key that a cookie claims to be of; None where it is no cookie."""
    found = _COOKIE.fullmatch(cookie) if len(cookie) <= MAX_COOKIE else None
    return None if found is None else found[1]


def read(cookie: str, key: bytes) -> Session | None:
    """Return the session of a cookie that was signed with a key; None of any other."""
    name = key_named(cookie)
    if name is None:
        return None
    try:
        match _cookies(key).loads(cookie.partition("~")[2]):
            case [str(id_), int(began_at), int(used_at)]:
                return Session(name, id_, began_at, used_at)
    except BadData:
        pass
    return None


def form_token(subject: str, key: bytes) -> str:
    """Return what each form of a session holds; `subject` is its id, or who the person is."""
    return hmac.new(key, b"form\0" + subject.encode(), hashlib.sha256).hexdigest()


def is_form_token(token: str, subject: str, key: bytes) -> bool:
    """Return whether a form is one of this session's."""
    return hmac.compare_digest(token.encode(errors="replace"), form_token(subject, key).encode())


def _cookies(key: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(
        key, salt="ackgate.console.session", signer_kwargs={"digest_method": hashlib.sha256}
    )
