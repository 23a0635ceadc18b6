"""Who may call: the password, the tokens given out for it, and how often it was wrong."""

import secrets
from collections import deque

from service.simulator.options import Options

TOKEN_BYTES = 24


class Logins:
    """Logins and their tokens; several tokens live at once (Meta's page on users)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = options.clock
        self._wrong: deque[float] = deque()
        self.tokens: dict[str, float] = {}
        """When each token expires, in Unix seconds."""
        self.succeeded = 0
        self.refused = 0

    def log_in(self) -> tuple[str, float]:
        """Give out a token and say when it expires, in Unix seconds."""
        now = self._clock()
        self.tokens = {token: until for token, until in self.tokens.items() if until > now}
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self.tokens[token] = now + self._options.token_seconds
        self.succeeded += 1
        self._wrong.clear()
        return token, self.tokens[token]

    def is_right(self, username: str, password: str) -> bool:
        """Compare the name and the password; a wrong one is counted."""
        if (username, password) == (self._options.username, self._options.password):
            return True
        self.refused += 1
        self._wrong.append(self._clock())
        return False

    def too_many(self) -> bool:
        """Tell whether so many logins were wrong of late that no further one is heard."""
        while self._wrong and self._wrong[0] <= self._clock() - self._options.wrong_login_seconds:
            self._wrong.popleft()
        return len(self._wrong) >= self._options.max_wrong_logins

    def admits(self, token: str) -> bool:
        """Tell whether a token was given out and hasn't expired."""
        return self.tokens.get(token, 0) > self._clock()

    def expire(self) -> int:
        """Let every token expire; return how many."""
        count = len(self.tokens)
        self.tokens.clear()
        return count
