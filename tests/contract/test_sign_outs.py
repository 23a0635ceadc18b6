"""A session that was signed out stays so for every replica, until it would have ended."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import select

from service.store.database import Database
from service.store.schema import installation
from service.store.sign_outs import PREFIX, is_signed_out, note_sign_out
from tests.querying import BOTH, database_of

NOW = 1_600_000_000_000


@pytest.fixture(params=BOTH)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with database_of(request) as made:
        yield made


async def test_a_sign_out_is_kept_until_the_session_would_have_ended(database: Database) -> None:
    async def sign_out(session_id: str, now: int, ends_at: int) -> None:
        note = partial(note_sign_out, now=now, session_id=session_id, ends_at=ends_at)
        await database.write(note)

    async def known() -> list[str]:
        names = "first", "second", "third"
        out = [await database.read(partial(is_signed_out, session_id=name)) for name in names]
        return [name for name, is_out in zip(names, out, strict=True) if is_out]

    assert await known() == []
    await sign_out("first", NOW, NOW + 10)
    await sign_out("first", NOW, NOW + 10)
    await sign_out("second", NOW + 9, NOW + 20)
    assert await known() == ["first", "second"]
    await sign_out("third", NOW + 10, NOW + 30)
    assert await known() == ["second", "third"]
    keys = await database.read(lambda c: c.execute(select(installation.c.key)).scalars().all())
    ours = [key for key in keys if key.startswith(PREFIX)]
    assert len(ours) == 2
    assert not [key for key in ours if "second" in key or "third" in key]
    assert len(keys) > len(ours), "other rows of the table stay"
