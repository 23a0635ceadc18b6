"""The business numbers and their accounts, with what was set for each."""

from dataclasses import dataclass

from service.simulator.cloud.options import CloudOptions, Number


@dataclass(slots=True)
class Line:
    """A business number as it is set up now."""

    number: Number
    identity_check: bool = False
    webhook_url: str | None = None
    """Its own callback URL, which goes before its account's and the app's."""


@dataclass(slots=True)
class Account:
    """A WhatsApp Business Account as it is set up now."""

    waba_id: str
    subscribed: bool = True
    """Whether the app gets its webhooks."""
    webhook_url: str | None = None
    """Its own callback URL, which goes before the app's."""


class Lines:
    """The numbers by id, and the accounts by id."""

    def __init__(self, options: CloudOptions) -> None:
        self.numbers = {
            number.phone_number_id: Line(number, options.identity_check)
            for number in options.numbers
        }
        self.accounts = {
            number.waba_id: Account(number.waba_id, options.subscribed)
            for number in options.numbers
        }

    def line(self, phone_number_id: str | None) -> Line:
        """Return a number, the first unless named; ValueError when there is none of that id."""
        if phone_number_id is None:
            return next(iter(self.numbers.values()))
        if phone_number_id not in self.numbers:
            raise ValueError(f"no business number has the id {phone_number_id}")
        return self.numbers[phone_number_id]

    def account_of(self, line: Line) -> Account:
        """Return the account that a number belongs to."""
        return self.accounts[line.number.waba_id]
