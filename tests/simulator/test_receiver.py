"""`ackgate simulate receive`: a system behind a relay, which prints what comes."""

import asyncio
import base64
import hashlib
import hmac
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from typer.testing import CliRunner

from service.simulator.command import app

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = '{"text":"Grüße"}'.encode()


@dataclass
class Receiving:
    """The real command, and where it listens."""

    process: asyncio.subprocess.Process
    url: str

    async def printed(self) -> tuple[str, str]:
        """Give the two lines of the next delivery."""
        assert self.process.stdout is not None
        lines = [(await self.process.stdout.readline()).decode() for _ in range(2)]
        return lines[0], lines[1]

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/any/path", data=body, headers=headers) as answer,
        ):
            return answer.status


async def started(*words: str) -> Receiving:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.simulator", "receive", "--port", "0", *words),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    return Receiving(process, line.split()[-1])


@pytest.fixture
async def receiving() -> AsyncIterator[Receiving]:
    made = await started("--secret", SECRET)
    yield made
    if made.process.returncode is None:
        made.process.kill()
    await made.process.wait()


def headers(body: bytes = BODY, **more: str) -> dict[str, str]:
    """Sign as Standard Webhooks say, for an old secret too."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, b"e.7.1700000000." + body, hashlib.sha256).digest())
    return {
        "webhook-id": "e.7",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,b2xk v1,{digest.decode()}",
        "Ackgate-Account": "shop",
        "Ackgate-Attempt": "2",
        **more,
    }


async def test_a_delivery_is_printed_with_what_it_is(receiving: Receiving) -> None:
    assert await receiving.post(BODY, headers()) == 200
    head, body = await receiving.printed()
    assert head == "received: shop, e.7, attempt 2, rightly signed; answered 200\n"
    assert body == '  {"text":"Grüße"}\n'
    await receiving.post(BODY + b" ", headers(**{"Ackgate-Replay-Of": "e.1"}))
    assert "WRONGLY SIGNED, a replay" in (await receiving.printed())[0]
    await receiving.post(b"", {"Ackgate-Test": "true"})
    assert "no account, no id, attempt ?, not signed, a test" in (await receiving.printed())[0]


async def test_what_comes_can_not_play_with_the_terminal(receiving: Receiving) -> None:
    raw = b"\x1b[31m\n\x00" + b"x" * 2000
    await receiving.post(raw, headers(raw, **{"Content-Encoding": "gzip"}))
    head, body = await receiving.printed()
    assert "rightly signed" in head
    assert body.rstrip("\n").isprintable()
    assert len(body) < 1100
    assert body.endswith(f"{len(raw)} bytes\n")


async def test_it_ends_at_a_signal_with_0(receiving: Receiving) -> None:
    receiving.process.send_signal(signal.SIGTERM)
    assert await receiving.process.wait() == 0


async def test_it_answers_what_it_is_told_to() -> None:
    made = await started("--status", "503")
    assert await made.post(BODY, headers()) == 503
    assert "signed; answered 503" in (await made.printed())[0]
    made.process.send_signal(signal.SIGINT)
    assert await made.process.wait() == 0


@pytest.mark.parametrize(
    ("words", "line"), [(("--secret", "whsec_?"), "base64"), (("--host", "192.0.2.1"), "assign")]
)
def test_what_can_not_be_is_one_line_and_exit_1(words: tuple[str, ...], line: str) -> None:
    result = CliRunner().invoke(app, ["receive", "--port", "0", *words])
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
