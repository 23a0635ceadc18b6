"""`ackgate acknowledge --file`: many decisions on one evidence, and what became of each."""

from pathlib import Path

import pytest
from aiohttp import web

from tests.acceptance.commands import parsed, refused, run, serving
from tests.acceptance.conftest import HASH_A, HASH_B, OTHER_ID, WA_ID, Installation

EVIDENCE = ("--method", "called back", "--reference", "T-17", "--note", "both by phone")


async def test_a_file_of_decisions_is_acknowledged_on_one_evidence(
    manual: Installation, tmp_path: Path
) -> None:
    hashes = {user: await manual.change(user) for user in (WA_ID, OTHER_ID)}
    lines = [f"{hash_},Ann,{user},main" for user, hash_ in hashes.items()]
    file = tmp_path / "decisions.csv"
    file.write_text("\n".join(["Hash,Name,User,Account", *lines]))
    done = await run("acknowledge", "--file", str(file), *EVIDENCE, url=manual.base)
    assert done.stdout == "2 decided, 0 refused\n"
    for user in hashes:
        await manual.becomes("acknowledged", user)
        [decided] = await manual.audit(user, "decided")
        assert decided["note"] == "both by phone"
        assert decided["evidence"] == {"method": "called back", "reference": "T-17"}


async def test_without_names_the_columns_are_account_user_and_hash(manual: Installation) -> None:
    hash_ = await manual.change()
    typed = f"main,{WA_ID},{hash_}\n"
    answer = await run("acknowledge", "--file", "-", "--json", url=manual.base, typed=typed)
    summary = parsed(answer)
    assert (summary["decided"], summary["refused"]) == (1, 0)
    assert summary["items"][0]["identity"]["hash"] == hash_
    await manual.becomes("acknowledged")


async def test_one_that_is_refused_is_listed_and_the_others_go_through(
    manual: Installation, tmp_path: Path
) -> None:
    await manual.change(WA_ID, HASH_A)
    await manual.change(OTHER_ID, HASH_B)
    file = tmp_path / "decisions.csv"
    file.write_text(
        f"account,user,hash\nmain,{WA_ID},{HASH_B}\n\nmain,{OTHER_ID},{HASH_B}\nmain,1631,{HASH_A}\n"
    )
    result = await run("acknowledge", "--file", str(file), url=manual.base, expect=1)
    assert "1 decided, 2 refused" in result.stdout
    [row] = [line for line in result.stdout.splitlines() if WA_ID in line]
    assert row.split()[:3] == ["2", "main", WA_ID]
    assert "another hash is the latest" in row
    assert row.endswith(HASH_A)
    [row] = [line for line in result.stdout.splitlines() if " 1631 " in line]
    assert row.split()[0] == "5"
    assert result.stderr == "ackgate: 2 of 3 were refused\n"
    await manual.becomes("acknowledged", OTHER_ID)
    assert await manual.state(WA_ID) == "pending"


async def test_a_file_of_any_length_is_sent_in_parts(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def take(request: web.Request) -> web.Response:
        items = (await request.json())["items"]
        sizes.append(len(items))
        if len(sizes) == 3:
            return web.json_response({"title": "Service Unavailable"}, status=503)
        return web.json_response({"items": [{**item, "status": 202} for item in items]})

    file = tmp_path / "decisions.csv"
    file.write_text("".join(f"main,{n},{HASH_A}\n" for n in range(1200)))
    async with serving(take) as url:
        stopped = await run("acknowledge", "--file", str(file), url=url, expect=1)
        assert sizes == [500, 500, 200]
        assert "503 Service Unavailable" in stopped.stderr
        assert "the first 1000 were sent before" in stopped.stderr
        done = await run("acknowledge", "--file", str(file), url=url)
    assert done.stdout == "1200 decided, 0 refused\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no decision"),
        ("account,user,hash\n", "holds no decision"),
        (f"account,user,hash\nmain,1,{HASH_A}\nmain,2,\n", "line 3 must hold"),
        (f"account,user,hash\nmain,1\nmain,2,{HASH_A}\n", "line 2 must hold"),
        (f"main,1,{HASH_A},more\n", "line 1 must hold"),
        ("\udcff", "is no CSV"),
    ],
)
async def test_a_file_that_is_none_of_decisions_is_refused_before_anything_is_sent(
    tmp_path: Path, text: str, line: str
) -> None:
    file = tmp_path / "decisions.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert line in await refused("acknowledge", "--file", str(file), url="http://x", expect=2)


async def test_a_file_goes_without_a_user_and_a_user_not_without_an_account(tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    file.write_text(f"main,{WA_ID},{HASH_A}\n")
    for more in (("main", WA_ID), ("--hash", HASH_A), ("--no-hash",), ("--wait", "5")):
        words = ("acknowledge", *more, "--file", str(file))
        assert "--file goes without" in await refused(*words, expect=2)
    assert "name ACCOUNT and USER" in await refused("acknowledge", "--hash", HASH_A, expect=2)
    gone = await refused("acknowledge", "--file", f"{file}.gone", expect=2)
    assert "No such file" in gone
