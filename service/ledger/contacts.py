"""Contact checks that are asked for, and the messages that their budget goes by, as commands."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

from service.ledger.unit_of_work import Command, Required, UnitOfWork
from service.model import contacts
from service.model.budget import Budget, Usage
from service.model.contacts import (
    DAY_MS,
    VALID,
    CheckOptions,
    Contact,
    Next,
    Number,
    OptIn,
    ask_again_or_give_up,
    count_attempt,
    count_to_check,
    plan_check,
    put_off,
    renew,
    without_opt_in,
)
from service.model.events import ContactChecked, Reading
from service.store.contacts import (
    Known,
    Repeat,
    add_usage,
    due_inputs,
    find_request,
    keep_answer,
    keep_request,
    known_numbers,
    note_written,
    usage,
)
from service.store.database import Transaction

KEPT_MS = DAY_MS
"""How long a request is known by its Idempotency-Key."""


class Key(NamedTuple):
    """A request that may be repeated: who made it, its Idempotency-Key, and what it asks."""

    caller: str
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request is bound by; `unwritten` are messages that are not yet in the database."""

    budget: Budget
    require_opt_in: bool
    unwritten: Usage


@dataclass(frozen=True, slots=True)
class Planned:
    """The inputs to be asked now, each once; `checks` of them count for the budget."""

    ask: tuple[str, ...]
    checks: int


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Nothing was done: the numbers would cost more than there is left."""

    usage: Usage
    price: float


@dataclass(frozen=True, slots=True)
class NoOptIn:
    """Nothing was done: at these places of the request there is an input without an opt-in."""

    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnotherRequest:
    """Nothing was done: the Idempotency-Key was that of another request."""


def spending_of(account: str) -> str:
    """Name what an account's budget goes by, and the requests that were counted in it."""
    return f"spending of {account}"


Plan = Planned | OverBudget | NoOptIn | AnotherRequest | Repeat


@dataclass(slots=True)
class PlanChecks(Command[Plan]):
    """Decides what is to be asked for a request, opens the checks, and counts them."""

    account: str
    numbers: Sequence[Number]
    asking: CheckOptions
    limits: Limits
    key: Key | None = None
    known: dict[str, Known] = field(default_factory=dict)
    is_paid: bool = False

    @property
    def weight(self) -> int:
        """Some for each input."""
        return 1 + 2 * len(self.numbers)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        inputs = [(self.account, number.input) for number in self.numbers]
        return Required(inputs=inputs, names=[spending_of(self.account)])

    def apply(self, uow: UnitOfWork) -> Plan:
        """Decide, and refuse the whole request where a part of it can't be."""
        self.is_paid = False
        repeat = self._repeat(uow)
        if repeat is not None:
            return repeat
        connection = uow.connection
        forms = sorted({number.canonical for number in self.numbers} - {""})
        self.known = known_numbers(connection, self.account, forms, uow.now)
        if self.limits.require_opt_in:
            places = without_opt_in(self.numbers, self._opt_ins(uow))
            if places:
                return NoOptIn(tuple(places))
        return self._plan(uow)

    def _repeat(self, uow: UnitOfWork) -> Repeat | AnotherRequest | None:
        if self.key is None:
            return None
        connection, (caller, key, digest) = uow.connection, self.key
        since = uow.now - KEPT_MS
        found = find_request(connection, self.account, caller, key, since)
        if found is None:
            return None
        if found.digest != digest:
            return AnotherRequest()
        self.is_paid = True
        return found if found.answer is not None else None

    def _opt_ins(self, uow: UnitOfWork) -> dict[str, OptIn]:
        found = {form: known.opt_in for form, known in self.known.items() if known.opt_in}
        for number in self.numbers:
            contact = uow.contact(self.account, number.input)
            opt_in = number.opt_in or (contact.opt_in if contact else None)
            if opt_in is not None:
                found[number.name] = opt_in
        return found

    def _plan(self, uow: UnitOfWork) -> Planned | OverBudget:
        planned: dict[str, tuple[Number, Next, Contact]] = {}
        for number in self.numbers:
            known = uow.contact(self.account, number.input)
            todo, contact = plan_check(self.account, known, number, self.asking, uow.now)
            planned.setdefault(number.input, (number, todo, contact))
        ask = [number for number, todo, _ in planned.values() if todo is Next.ASK]
        checks = count_to_check(ask, self._counted(uow), force=self.asking.force)
        refused = self._spend(uow, checks)
        if refused is not None:
            return refused
        for _, _, contact in planned.values():
            if contact != uow.contact(self.account, contact.input):
                uow.put_contact(contact)
        if self.key is not None and not self.is_paid:
            connection, (caller, key, digest) = uow.connection, self.key
            since = uow.now - KEPT_MS
            keep_request(connection, self.account, caller, key, digest, uow.now, since)
        return Planned(tuple(number.input for number in ask), checks)

    def _counted(self, uow: UnitOfWork) -> set[str]:
        """Name the numbers that cost nothing any more."""
        counted = {form for form, known in self.known.items() if known.counted}
        for number in self.numbers:
            contact = uow.contact(self.account, number.input)
            if contact is not None and (contact.check is not None or contact.fresh(uow.now)):
                counted.add(number.name)
        return counted

    def _spend(self, uow: UnitOfWork, checks: int) -> OverBudget | None:
        if not checks or self.is_paid:
            return None
        connection, budget = uow.connection, self.limits.budget
        used = usage(connection, self.account, budget.first_day(uow.now)) + self.limits.unwritten
        price = budget.price(checks, force=self.asking.force)
        if price > budget.left(used):
            return OverBudget(used, price)
        spent = Usage(checks=checks, forced=checks if self.asking.force else 0)
        add_usage(connection, self.account, uow.now // DAY_MS, spent)
        return None


@dataclass(frozen=True, slots=True)
class KeepAnswer(Command[None]):
    """Keeps what a request was answered, to answer its repetitions."""

    account: str
    key: Key
    answer: str

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[spending_of(self.account)])

    def apply(self, uow: UnitOfWork) -> None:
        """Keep it."""
        connection, key = uow.connection, self.key
        keep_answer(connection, self.account, key.caller, key.key, self.answer)


@dataclass(frozen=True, slots=True)
class RecordCheckResults(Command[None]):
    """What the client answered to a check; nothing where its effect is unknown.

    What it did not answer stays open, and waits for a callback.
    """

    account: str
    asked: Sequence[str]
    results: Sequence[ContactChecked]
    patience_ms: int

    @property
    def weight(self) -> int:
        """One for each input."""
        return 1 + len(self.asked)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        inputs = {*self.asked, *(result.input for result in self.results)}
        return Required(inputs=[(self.account, input_) for input_ in inputs])

    def apply(self, uow: UnitOfWork) -> None:
        """Take the results, and let the others wait."""
        for result in self.results:
            known = uow.contact(self.account, result.input)
            taken = contacts.apply_result(known, self.account, result, "", uow.now)
            if taken is not None:
                uow.put_contact(taken)
        for input_ in self.asked:
            contact = uow.contact(self.account, input_)
            if contact is not None and contact.check is not None:
                uow.put_contact(count_attempt(contact, uow.now, self.patience_ms))


@dataclass(frozen=True, slots=True)
class PostponeChecks(Command[None]):
    """A check that did not reach the client: it is asked later, after `delay_ms`."""

    account: str
    asked: Sequence[str]
    delay_ms: int

    @property
    def weight(self) -> int:
        """One for each input."""
        return 1 + len(self.asked)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        return Required(inputs=[(self.account, input_) for input_ in self.asked])

    def apply(self, uow: UnitOfWork) -> None:
        """Put them off."""
        for input_ in self.asked:
            contact = uow.contact(self.account, input_)
            if contact is not None and contact.check is not None:
                uow.put_contact(put_off(contact, uow.now + self.delay_ms))


@dataclass(frozen=True, slots=True)
class Due:
    """The inputs to be asked again, plainly or past the client's cache; and how many are failed."""

    plain: tuple[str, ...]
    forced: tuple[str, ...]
    failed: int


@dataclass(slots=True)
class TakeDueChecks(Command[Due]):
    """Takes checks that are due: to ask again, or to give up."""

    led: ClassVar[bool] = True
    account: str
    limit: int
    patience_ms: int
    max_attempts: int
    inputs: list[str] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """One for each input."""
        return 1 + self.limit

    async def required(self, transaction: Transaction, /) -> Required:
        """Return what to load."""
        self.inputs = await transaction.run(
            partial(due_inputs, account=self.account, now=transaction.now, limit=self.limit)
        )
        return Required(inputs=[(self.account, input_) for input_ in self.inputs])

    def apply(self, uow: UnitOfWork) -> Due:
        """Take those that are still due: an entry before in the batch may have brought a result."""
        asked: dict[bool, list[str]] = {False: [], True: []}
        failed = 0
        for input_ in self.inputs:
            contact = uow.contact(self.account, input_)
            if contact is None or contact.check is None or contact.check.due_at > uow.now:
                continue
            taken = ask_again_or_give_up(contact, uow.now, self.patience_ms, self.max_attempts)
            uow.put_contact(taken)
            if taken.check is None:
                failed += 1
            else:
                asked[taken.check.forced].append(input_)
        return Due(tuple(asked[False]), tuple(asked[True]), failed)


@dataclass(frozen=True, slots=True)
class Renewed:
    """How many contacts are to be checked anew; `refused` where the budget did not suffice."""

    count: int
    refused: int


@dataclass(frozen=True, slots=True)
class RenewContacts(Command[Renewed]):
    """Opens checks of contacts that are about to expire, as far as the budget suffices."""

    led: ClassVar[bool] = True
    account: str
    inputs: Sequence[str]
    budget: Budget
    unwritten: Usage

    @property
    def weight(self) -> int:
        """One for each input."""
        return 1 + len(self.inputs)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to load."""
        inputs = [(self.account, input_) for input_ in self.inputs]
        return Required(inputs=inputs, names=[spending_of(self.account)])

    def apply(self, uow: UnitOfWork) -> Renewed:
        """Open them."""
        found = [uow.contact(self.account, input_) for input_ in self.inputs]
        closed = [c for c in found if c is not None and c.check is None and c.status == VALID]
        connection = uow.connection
        used = usage(connection, self.account, self.budget.first_day(uow.now)) + self.unwritten
        some = closed[: int(self.budget.left(used))]
        for contact in some:
            uow.put_contact(renew(contact, uow.now))
        if some:
            add_usage(connection, self.account, uow.now // DAY_MS, Usage(checks=len(some)))
            uow.checks.add(self.account)
        return Renewed(len(some), len(closed) - len(some))


@dataclass(frozen=True, slots=True)
class CountMessages(Command[None]):
    """Count the messages that callbacks reported, and note to whom the business wrote."""

    account: str
    counted: Usage
    wa_ids: Sequence[str]

    @property
    def weight(self) -> int:
        """One for each user."""
        return 1 + len(self.wa_ids)

    async def required(self, _: Transaction, /) -> Required:
        """Return what to lock."""
        return Required(names=[spending_of(self.account)])

    def apply(self, uow: UnitOfWork) -> None:
        """Count, and note."""
        connection = uow.connection
        if self.counted.sent or self.counted.delivered:
            add_usage(connection, self.account, uow.now // DAY_MS, self.counted)
        note_written(connection, self.account, self.wa_ids, uow.now)


MAX_WA_IDS = 50_000
"""Users kept between two times of writing: beyond them, messages are counted alone."""


class _Counted:
    """What is not yet written of one account."""

    __slots__ = ("delivered", "sent", "wa_ids")

    def __init__(self) -> None:
        self.sent = self.delivered = 0
        self.wa_ids: set[str] = set()


class Messages:
    """The messages that are not yet written, by account. It lives on the event loop alone."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, _Counted] = defaultdict(_Counted)

    def note(self, account: str, reading: Reading) -> None:
        """Count the messages that a callback reported, once it is kept."""
        sent, delivered = reading.sent, reading.delivered
        counted = self._accounts[account]
        counted.sent += len(sent)
        counted.delivered += len(delivered)
        if len(counted.wa_ids) < MAX_WA_IDS:
            counted.wa_ids.update(sent, delivered)

    def counted(self, account: str) -> Usage:
        """Return what is not yet written."""
        counted = self._accounts[account]
        return Usage(sent=counted.sent, delivered=counted.delivered)

    def take(self, account: str) -> tuple[Usage, set[str]]:
        """Return what is not yet written, and forget it."""
        usage = self.counted(account)
        return usage, self._accounts.pop(account, _Counted()).wa_ids

    def give_back(self, account: str, counted: Usage, wa_ids: Iterable[str]) -> None:
        """Take again what could not be written."""
        known = self._accounts[account]
        known.sent += counted.sent
        known.delivered += counted.delivered
        known.wa_ids.update(wa_ids)
