"""How a PostgreSQL server is reached: by its URL, encrypted or by a socket, and with its driver."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from service.store.database import StoreError
from service.store.opening import NO_DRIVER, open_database
from tests.postgres import execute, run
from tools.postgres import PASSWORD, SUPERUSER, USER, LocalServer, local_server


class Encrypted(NamedTuple):
    """A server that has a certificate, the authority that issued it, and another authority."""

    server: LocalServer
    authority: Path
    other: Path

    def url(self, options: str, host: str = "127.0.0.1") -> str:
        return f"postgresql://{USER}:{PASSWORD}@{host}:{self.server.port}/{USER}?{options}"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("authorities")
    files = folder / "authority.pem", folder / "other.pem"
    authority, other = trustme.CA(), trustme.CA()
    for ca, file in zip((authority, other), files, strict=True):
        ca.cert_pem.write_to_path(file)
    issued = authority.issue_cert("127.0.0.1")
    with local_server() as server:
        certificate = server.put("certificate.pem", issued.cert_chain_pems[0].bytes())
        key = server.put("key.pem", issued.private_key_pem.bytes())
        server.stop()
        server.settings |= {
            "ssl": "on",
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
        }
        server.start()
        run(execute(server.url, f"CREATE DATABASE {USER}"))
        yield Encrypted(server, *files)


async def is_encrypted(url: str) -> bool:
    """Open a database; return whether its connections are encrypted."""
    database = await open_database(url)
    try:
        sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return bool(await database.read(lambda c: c.exec_driver_sql(sql).scalar()))
    finally:
        await database.close()


async def refusal(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        await open_database(url)
    text = str(caught.value)
    assert text.startswith("database.url: ")
    assert text.isprintable(), "one line"
    assert PASSWORD not in text
    return text


@pytest.mark.postgres
class TestAServerWithACertificate:
    @pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
    async def test_is_known_by_its_authority(self, encrypted: Encrypted, mode: str) -> None:
        options = f"sslmode={mode}&sslrootcert={encrypted.authority}"
        assert await is_encrypted(encrypted.url(options))

    async def test_is_refused_where_another_one_issued_it(self, encrypted: Encrypted) -> None:
        options = f"sslmode=verify-full&sslrootcert={encrypted.other}"
        assert "certificate verify failed" in await refusal(encrypted.url(options))

    async def test_is_refused_under_another_name(self, encrypted: Encrypted) -> None:
        options = f"sslmode=verify-full&sslrootcert={encrypted.authority}"
        assert "certificate" in await refusal(encrypted.url(options, host="localhost"))

    @pytest.mark.parametrize(
        ("mode", "does"), [("disable", False), ("prefer", True), ("require", True)]
    )
    async def test_encrypts_as_it_is_told(
        self, encrypted: Encrypted, mode: str, *, does: bool
    ) -> None:
        assert await is_encrypted(encrypted.url(f"sslmode={mode}")) is does

    async def test_is_reached_by_its_socket(self, encrypted: Encrypted) -> None:
        server = encrypted.server
        options = f"host={server.folder}&port={server.port}"
        assert not await is_encrypted(f"postgresql://{SUPERUSER}@/{USER}?{options}")


@pytest.mark.postgres
async def test_a_server_without_a_certificate_is_refused_where_one_is_needed(
    postgres_url: str,
) -> None:
    assert not await is_encrypted(postgres_url)
    assert "rejected SSL upgrade" in await refusal(f"{postgres_url}?sslmode=require")


async def test_a_driver_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [name for name in sys.modules if name.startswith("service.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    said = await refusal("postgresql://ackgate@127.0.0.1/ackgate")
    assert said == NO_DRIVER
    assert "ackgate[postgres]" in said
