"""How a call to a WhatsApp client can fail, sorted by what is known of its effect."""


class CallError(Exception):
    """A call that was not answered; the text holds nothing of the call's content."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


class NotSentError(CallError):
    """No connection came about, or no login: the call had no effect for sure."""


class NoReplyError(CallError):
    """The call may have reached the client: its effect is unknown."""


class LoginRefusedError(CallError):
    """The client does not let us in: nothing was sent, and the account pauses."""


class BusyError(NotSentError):
    """Too much is asked, by us or as the client says; to be tried again in so many `seconds`."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class ForbiddenError(CallError):
    """The client answered, and this login may not do that: it is no admin's."""


class NotThereError(CallError):
    """Graph has no such object, or none that this access token may see: it tells no difference."""


class InvalidError(CallError):
    """Graph takes what is to be changed for wrong, or too early: nothing was changed."""


class HandshakeError(CallError):
    """Meta asked the door for the handshake, and was not answered right."""
