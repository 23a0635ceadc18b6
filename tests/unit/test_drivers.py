"""The comparison of the ways to the driver keeps up with the statements that it compares."""

import pytest

from tools.bench import drivers


async def test_every_way_writes_a_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drivers, "ROUNDS", 1)
    monkeypatch.setattr(drivers, "BATCHES_A_ROUND", 1)
    await drivers.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "whole",
        "aiosqlite,",
        "SQLAlchemy",
    ]
