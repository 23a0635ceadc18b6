"""Alerts: each destination is told which issues were raised, and which of them are gone.

What a destination was told of is kept in the database, and held against what is raised now. So a
restart repeats nothing and forgets nothing, one that was down is told what stands once it is back,
and a new one what stands when it comes. The library that sends is in the extra `ackgate[alerts]`.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import structlog

from service.ledger.ledger import Ledger
from service.model.account_checks import Issue
from service.model.event_log import EventType
from service.observability.metrics import Metrics
from service.settings import AlertSettings, AlertUrl
from service.store.alerts import issues_alerted, keep_alerted
from service.store.database import ChangeSet, Database, UnavailableError
from service.store.events import IssueKey, issues_raised

if TYPE_CHECKING:
    from apprise import Apprise

GROUP_SECONDS = 5.0
"""What is raised or cleared within so long is one message."""
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 900.0
SEND_SECONDS = 60.0
"""After so long a message counts as not sent; Apprise's own time-outs are shorter."""
FINISH_SECONDS = 2.0
"""How long a message under way may take once the service stops."""
NAMED = 10
"""So many issues, and so many that are gone, are named in a message; all are in `/issues`."""
SENT, FAILED = "sent", "failed"

Issues = Mapping[IssueKey, Issue]

log = structlog.get_logger(__name__)


class AlertsError(Exception):
    """No alert can be sent as it is configured; the text is one line that names the key."""


class Message(NamedTuple):
    """What is sent; `kind` is how Apprise shows it: `info`, `success` or `warning`."""

    title: str
    body: str
    kind: str


TEST = Message("Ackgate: test alert", "Somebody tests the alerts. Nothing is wrong.", "info")


def message_of(raised: Sequence[Issue], cleared: Sequence[Issue], standing: int) -> Message:
    """Return the message about what is new and what is gone; `standing` others were told before."""
    counts = [
        f"{len(issues)} issue{'' if len(issues) == 1 else 's'} {what}"
        for what, issues in (("raised", raised), ("cleared", cleared))
        if issues
    ]
    parts = [
        f"{_name(issue)}: {issue.detail}\nWhat to do: {issue.cure}" for issue in raised[:NAMED]
    ]
    parts += _more(len(raised))
    gone = [f"Cleared: {_name(issue)}" for issue in cleared[:NAMED]]
    parts += ["\n".join([*gone, *_more(len(cleared))])] if gone else []
    if standing:
        parts.append(
            f"Still there: {standing} that {'was' if standing == 1 else 'were'} told before"
        )
    elif not raised:
        parts.append("No issue is left.")
    kind = "warning" if raised else "success"
    return Message(f"Ackgate: {', '.join(counts)}", "\n\n".join(parts), kind)


def _name(issue: Issue) -> str:
    about = [f"account {issue.account}"] if issue.account else []
    about += [issue.subject] if issue.subject else []
    return f"{issue.code} ({', '.join(about)})" if about else issue.code


def _more(count: int) -> list[str]:
    return [f"… and {count - NAMED} more"] if count > NAMED else []


class Channel:
    """One destination. Its `id` is a digest of the URL, which may be shown nowhere.

    Raises AlertsError where Apprise is not installed, or does not know the URL.
    """

    def __init__(self, url: AlertUrl) -> None:
        self.line = url.line
        self.scheme = url.scheme
        self.id = hashlib.sha256(url.text.encode()).hexdigest()
        self._apprise = _apprise_of(url)
        self._thread: Thread | None = None

    def send(self, message: Message) -> bool:
        """Send a message, and return whether that worked. It takes as long as the other side."""
        from apprise import NotifyFormat, NotifyType  # noqa: PLC0415 - an extra

        try:
            return bool(
                self._apprise.notify(
                    message.body,
                    message.title,
                    NotifyType(message.kind),
                    body_format=NotifyFormat.TEXT,
                )
            )
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            log.debug("Apprise failed", error=type(error).__name__)
            return False

    async def deliver(self, message: Message) -> bool:
        """Send a message in a thread of its own, which keeps neither others nor the end waiting."""
        if self._thread is not None and self._thread.is_alive():
            return False  # the last try still hangs
        loop = asyncio.get_running_loop()
        result: asyncio.Future[bool] = loop.create_future()

        def answer(*, sent: bool) -> None:
            if not result.done():
                result.set_result(sent)

        def work() -> None:
            sent = self.send(message)
            with suppress(RuntimeError):  # the service has stopped meanwhile
                loop.call_soon_threadsafe(partial(answer, sent=sent))

        self._thread = Thread(target=work, name="alert", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                return await result
        except TimeoutError:
            return False


def _apprise_of(url: AlertUrl) -> "Apprise":
    try:
        from apprise import Apprise  # noqa: PLC0415 - an extra; it takes a second to load
    except ModuleNotFoundError:
        raise AlertsError(
            "alerts.urls: needs Apprise, which is in the extra ackgate[alerts]; "
            "install that, or remove alerts.urls_file"
        ) from None
    # What it logs holds hosts and paths of URLs.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    made = Apprise()
    if not made.add(url.text) or len(made) != 1:
        raise AlertsError(
            f"alerts.urls: line {url.line} is not one URL that Apprise knows; correct or remove it"
        )
    return made


def channels_of(settings: AlertSettings) -> list[Channel]:
    """Return the configured destinations. Raises AlertsError."""
    return [Channel(url) for url in settings.destinations]


class Follower:
    """Tells one destination what it was not told yet, again and again, until it takes it."""

    def __init__(self, channel: Channel, database: Database, metrics: Metrics) -> None:
        self.channel = channel
        self.failures = 0
        self.is_busy = False
        self.is_stopping = False
        self.news = asyncio.Event()
        self.news.set()
        self._database = database
        self._metrics = metrics
        self._told: Issues | None = None
        self._is_saved = True
        for result in (SENT, FAILED):
            metrics.alerts.labels(channel.scheme, result)

    async def run(self) -> None:
        """Look whenever there is news, a little later; after a failure later still."""
        while not self.is_stopping:
            await self.news.wait()
            await asyncio.sleep(self._pause())
            self.news.clear()
            self.is_busy = True
            try:
                await self.look()
            except UnavailableError:
                self.news.set()
            except Exception:
                log.exception("alerting failed", scheme=self.channel.scheme, line=self.channel.line)
                self.failures += 1
            finally:
                self.is_busy = False
            if self.failures:
                self.news.set()

    def _pause(self) -> float:
        if not self.failures:
            return GROUP_SECONDS
        longest = FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - 1, 20)
        return min(longest, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311 - spreads

    async def look(self) -> None:
        """Tell what is new and what is gone, if anything is. Raises UnavailableError."""
        me = self.channel.id
        if self._told is None:
            self._told = await self._database.read(partial(issues_alerted, destination=me))
        told = self._told
        there = await self._database.read(issues_raised)
        raised = {k: v for k, v in there.items() if k not in told and not v.is_notice}
        cleared = {k: v for k, v in told.items() if k not in there}
        if raised or cleared:
            standing = {k: v for k, v in told.items() if k in there}
            message = message_of([*raised.values()], [*cleared.values()], len(standing))
            if await self._send(message):
                self._told, self._is_saved = standing | raised, False
        else:
            self.failures = 0  # what could not be sent has passed by itself
        if not self._is_saved:
            keep = partial(keep_alerted, destination=me, issues=self._told)
            await self._database.write(keep, led=True)
            self._is_saved = True

    async def _send(self, message: Message) -> bool:
        is_sent = await self.channel.deliver(message)
        scheme = self.channel.scheme
        self._metrics.alerts.labels(scheme, SENT if is_sent else FAILED).inc()
        self.failures = 0 if is_sent else self.failures + 1
        if not is_sent:
            log.warning("an alert did not go out", scheme=scheme, line=self.channel.line)
        return is_sent


class Alerter:
    """Follows, for each destination by itself, what is raised and cleared."""

    def __init__(self, ledger: Ledger, database: Database, metrics: Metrics) -> None:
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._channels: Sequence[Channel] = ()
        self._running: dict[str, tuple[Follower, asyncio.Task[None]]] = {}
        self._is_started = False

    @property
    def failing(self) -> int:
        """How many destinations did not take the last message."""
        return sum(follower.failures > 0 for follower, _ in self._running.values())

    def use(self, channels: Sequence[Channel]) -> None:
        """Have these destinations told from now on, or from the start on, and no others."""
        self._channels = channels
        if self._is_started:
            self._follow()

    def start(self) -> None:
        """Begin."""
        self._is_started = True
        self._ledger.listeners.append(self._on_commit)
        self._follow()

    def _follow(self) -> None:
        wanted = {channel.id: channel for channel in self._channels}
        for gone in self._running.keys() - wanted.keys():
            self._running.pop(gone)[1].cancel()
        for id_ in wanted.keys() - self._running.keys():
            follower = Follower(wanted[id_], self._database, self._metrics)
            self._running[id_] = follower, asyncio.create_task(follower.run())

    def _on_commit(self, commit: ChangeSet) -> None:
        if EventType.RAISED in commit.told or EventType.CLEARED in commit.told:
            for follower, _ in self._running.values():
                follower.news.set()

    def stop(self) -> None:
        """Send nothing more but what is under way."""
        if self._is_started:
            self._ledger.listeners.remove(self._on_commit)
            self._is_started = False
        for follower, task in self._running.values():
            follower.is_stopping = True
            if not follower.is_busy:
                task.cancel()

    async def finish(self, seconds: float) -> None:
        """Let what is under way end, within a moment."""
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=min(seconds, FINISH_SECONDS))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
