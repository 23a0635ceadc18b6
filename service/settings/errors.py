"""What stops the start: one line that names the key, the place, and the cure."""


class SettingsError(Exception):
    """The configuration can't be used. Its text is one line, and never holds a value.

    Values are left out altogether, secret or not: a password ends up in the wrong field easily.
    """

    def __init__(self, key: str, problem: str, place: str) -> None:
        """Say what is wrong with `key`, and in which file or environment variable."""
        super().__init__(f"{one_line(key)}: {one_line(problem)} (in {one_line(place)})")
        self.key = key


class UnusableFileError(SettingsError):
    """The configuration file itself can't be read."""

    def __init__(self, file: str, problem: str) -> None:
        """Say what is wrong with the file."""
        Exception.__init__(self, f"{one_line(file)}: {one_line(problem)}")
        self.key = ""


def one_line(text: str) -> str:
    """Return the text without anything that would break or colour the line."""
    return "".join(c if c.isprintable() else "?" for c in text)[:500]
