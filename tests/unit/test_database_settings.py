"""The settings of the database: which URLs there may be, and a password that shows nowhere."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import make_url

from service.settings import Settings, SettingsError, load, needing_restart
from service.store.sqlite_files import path_of

SECRET = "a-secret-nobody-may-see"
URL = "postgresql://ackgate@db.example.com:5433/ackgate"


def settings(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> Settings:
    file = folder / "ackgate.toml"
    file.write_text(f"[database]\n{toml}", encoding="utf-8")
    return load(file, environ or {})


def refusal(folder: Path, toml: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(folder, toml, environ)
    text = str(caught.value)
    assert text.isprintable(), "one line, which can be printed"
    assert SECRET not in text
    return text


def test_a_file_is_relative_or_from_the_root(tmp_path: Path) -> None:
    relative = settings(tmp_path, "url = 'sqlite:///var/x.db'").database
    assert path_of(relative.url) == Path("var/x.db")
    absolute = settings(tmp_path, "url = 'sqlite:////srv/x.db'").database
    assert path_of(absolute.url) == Path("/srv/x.db")
    assert not absolute.is_postgres
    assert absolute.full_url == absolute.url


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgresql://db/ackgate",
        "postgresql://ackgate@[::1]:5432/ackgate",
        "postgresql://ackgate@db/ackgate?sslmode=require",
        "postgresql://ackgate@/ackgate?host=/run/postgresql",
        "postgresql:///ackgate?host=/run/postgresql&port=5433",
        "postgresql://user%40example.com@db/a%20name",
    ],
)
def test_a_server_is_named_by_a_url(tmp_path: Path, url: str) -> None:
    got = settings(tmp_path, f"url = '{url}'").database
    assert got.is_postgres
    assert got.url == got.full_url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://ackgate@db", "names no database"),
        ("postgresql://ackgate@db/", "names no database"),
        ("postgresql://ackgate@db/a/b", "names no database"),
        ("postgresql:///ackgate", "must be postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql:ackgate", "must be postgresql://USER@HOST:PORT/DATABASE"),
        ("postgres://ackgate@db/ackgate", "must be postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql+asyncpg://ackgate@db/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@db:port/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@db:0/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@db:70000/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://a b@db/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://a@b@db/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@db/ackgate#x", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@[::1/ackgate", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@one,two/ackgate", "must name one host"),
        ("postgresql://ackgate@db/ackgate?host=/run", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@db:1/ackgate?port=2", "must be postgresql://USER@HOST"),
        ("postgresql://ackgate@:1/ackgate?host=/run", "is the option port"),
        ("postgresql://ackgate@/ackgate?host=db", "the option host is the folder of a Unix socket"),
        ("postgresql://ackgate@/ackgate?host=/run&port=x", "the option port must be a number"),
        ("postgresql://ackgate@db/ackgate?sslmode=on", "sslmode must be one of disable, allow"),
        ("postgresql://ackgate@db/ackgate?ssl=require", "its options are host, port, sslmode"),
        ("postgresql://ackgate@db/ackgate?sslmode=allow&sslmode=allow", "each once"),
        (
            "postgresql://ackgate@db/ackgate?sslmode=verify-full",
            "sslmode=verify-full needs the option sslrootcert",
        ),
        (
            "postgresql://ackgate@db/ackgate?sslrootcert=no/such.pem",
            "the option sslrootcert: the file does not exist",
        ),
    ],
)
def test_a_url_that_does_not_name_a_server_is_refused(
    tmp_path: Path, url: str, problem: str
) -> None:
    said = refusal(tmp_path, f"url = '{url}'")
    assert said.startswith("database.url: ")
    assert problem in said


def test_a_file_of_authorities_holds_certificates(tmp_path: Path) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_text("nothing")
    url = f"postgresql://ackgate@db/ackgate?sslmode=verify-full&sslrootcert={authorities}"
    said = refusal(tmp_path, f"url = '{url}'")
    assert "the option sslrootcert: the file holds no certificate in PEM form" in said


class TestThePassword:
    @pytest.mark.parametrize("password", [SECRET, "p@ss:w/rd?#%&+ ü", "100%", "a@b@c"])
    def test_reaches_the_driver_as_it_is(self, tmp_path: Path, password: str) -> None:
        (tmp_path / "password").write_text(f"{password}\n", encoding="utf-8")
        url = f"{URL}?sslmode=require"
        got = settings(tmp_path, f"url = '{url}'\npassword_file = '{tmp_path}/password'").database
        assert got.url == url
        read = make_url(got.full_url)
        assert read.password == password
        assert read.render_as_string() == make_url(url).set(password="x").render_as_string()

    @pytest.mark.parametrize(
        "written", ["a-secret%2Dnobody-may-see", "a-secret-nobody-may-see"], ids=["%XX", "plain"]
    )
    def test_that_a_url_has_is_moved_out_of_it(self, tmp_path: Path, written: str) -> None:
        written_url = URL.replace("@", f":{written}@")
        for got in (
            settings(tmp_path, f"url = '{written_url}'"),
            settings(tmp_path, "", {"ACKGATE_DATABASE__URL": written_url}),
        ):
            assert got.database.url == URL
            assert make_url(got.database.full_url).password == SECRET
            assert SECRET not in f"{got!r} {got} {got.redacted()}"
            assert got.redacted()["database"]["password"] == "…"

    def test_may_be_without_a_user(self, tmp_path: Path) -> None:
        got = settings(tmp_path, "url = 'postgresql://db/ackgate'\npassword = 'x'").database
        assert got.full_url == "postgresql://:x@db/ackgate"

    def test_may_be_of_a_user_of_a_socket(self, tmp_path: Path) -> None:
        url = "postgresql://ackgate@/ackgate?host=/run/a@b"
        got = settings(tmp_path, f"url = '{url}'\npassword = 'x'").database
        assert got.url == url
        assert got.full_url == "postgresql://ackgate:x@/ackgate?host=/run/a@b"

    @pytest.mark.parametrize("separator", ["/", "?", "#", "@/", "12/", "12?", "12#"])
    def test_that_ends_too_early_in_a_url_is_refused_and_not_shown(
        self, tmp_path: Path, separator: str
    ) -> None:
        url = f"postgresql://ackgate:{separator}{SECRET}@db/ackgate"
        assert refusal(tmp_path, f"url = '{url}'").startswith("database.url: ")

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg", "mysql"])
    def test_of_a_url_with_another_scheme_is_not_shown(self, tmp_path: Path, scheme: str) -> None:
        url = f"{scheme}://ackgate:{SECRET}@db/ackgate"
        assert refusal(tmp_path, f"url = '{url}'").startswith("database.url: ")

    def test_is_given_once(self, tmp_path: Path) -> None:
        url = URL.replace("@", f":{SECRET}@")
        said = refusal(tmp_path, f"url = '{url}'\npassword = '{SECRET}'")
        assert said.startswith("database: two passwords: ")

    def test_is_not_empty(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, f"url = '{URL.replace('@', ':@')}'")
        assert said.startswith("database.password: must be text, not empty")

    def test_is_none_of_a_file(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, f"password = '{SECRET}'")
        assert said.startswith("database.password: a SQLite file has none")

    @pytest.mark.parametrize(
        ("before", "after", "keys"),
        [
            ("password = 'x'", "password = 'x'", []),
            ("password = 'x'", "password = 'y'", ["database.password"]),
            ("", "password = 'y'", ["database.password"]),
        ],
    )
    def test_is_another_one_only_after_a_restart(
        self, tmp_path: Path, before: str, after: str, keys: list[str]
    ) -> None:
        old, new = (settings(tmp_path, f"url = '{URL}'\n{line}") for line in (before, after))
        assert needing_restart(old, new) == keys
