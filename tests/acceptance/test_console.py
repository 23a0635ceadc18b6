"""The console's door: who comes in, for how long, and what it keeps out."""

from tests.acceptance.conftest import Install, digest_of

KEY = "a-key-of-the-console"


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(install: Install) -> None:
    made = await install(api={"keys": {"ana": {"role": "operator", "sha256": digest_of(KEY)}}})
    console = f"{made.base}/console"
    async with made.http.get(console, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/console/")
    async with made.http.get(f"{console}/", allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/console/sign-in?next=%2Fconsole%2F"
    form = {"api_key": KEY, "next": "/console/"}
    own = {"Origin": made.base}
    sent = made.http.post(f"{console}/sign-in", data=form, headers=own, allow_redirects=False)
    async with sent as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/console/")
        cookies = {name: morsel.value for name, morsel in answer.cookies.items()}
    async with made.http.get(f"{console}/", cookies=cookies) as answer:
        assert answer.status == 200
        assert "<h1>Waiting</h1>" in await answer.text()
