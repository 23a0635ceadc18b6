"""What a business sends besides plain messages: media, read marks, and what is refused at once."""

from hashlib import sha256
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from service.simulator import Simulator
from service.simulator.cloud.cloud import Cloud
from tests.simulator.conftest import NUMBER, SHEENA, TOKEN, Business, Endpoint, Graph

FILE = bytes(range(256)) * 5_000


def form(**fields: str) -> aiohttp.FormData:
    """Make the form of an upload, the file first, as some senders do."""
    made = aiohttp.FormData()
    made.add_field("file", BytesIO(FILE), filename="photo.jpg", content_type="image/jpeg")
    for name, value in fields.items():
        made.add_field(name, value)
    return made


async def upload(graph: Graph, data: Any, number: str = NUMBER) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with graph.session.post(f"/v25.0/{number}/media", data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_file_is_taken_whole_and_gets_an_id(cloud: Cloud, graph: Graph) -> None:
    status, body = await upload(graph, form(messaging_product="whatsapp", type="image/jpeg"))
    [media] = cloud.media
    assert (status, body) == (200, {"id": media.id})
    assert (media.size, media.sha256) == (len(FILE), sha256(FILE).hexdigest())
    assert media.content_type == "image/jpeg"
    assert cloud.calls["media"] == 1


@pytest.mark.parametrize(
    "fields",
    [{"type": "image/jpeg"}, {"messaging_product": "whatsapp"}, {"messaging_product": "x"}],
)
async def test_an_upload_that_lacks_a_field_is_refused(
    cloud: Cloud, graph: Graph, fields: dict[str, str]
) -> None:
    status, body = await upload(graph, form(**fields))
    assert (status, body["error"]["code"]) == (400, 100)
    assert not cloud.media


async def test_an_upload_that_is_no_form_or_to_an_unknown_number_is_refused(
    cloud: Cloud, graph: Graph
) -> None:
    assert (await upload(graph, BytesIO(FILE)))[0] == 400
    whole = form(messaging_product="whatsapp", type="image/jpeg")
    assert (await upload(graph, whole, "999"))[1]["error"]["error_subcode"] == 33
    assert not cloud.media


async def test_a_message_is_marked_as_read_and_goes_to_nobody(cloud: Cloud, graph: Graph) -> None:
    mark = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.x"}
    path = f"/{NUMBER}/messages"
    assert await graph.call("POST", path, mark) == (200, {"success": True})
    assert list(cloud.marks) == [mark]
    assert not cloud.messages
    for wrong in ({"status": "delivered"}, {"message_id": None}, {"messaging_product": "x"}):
        status, body = await graph.call("POST", path, {**mark, **wrong})
        assert (status, body["error"]["code"]) == (400, 100)


async def test_a_message_with_another_hash_can_be_refused_with_137000_at_once(
    cloud: Cloud, graph: Graph, endpoint: Endpoint
) -> None:
    cloud.change_settings(identity_check=True, refuse_mismatch=True)
    right = cloud.set_user(SHEENA).hash
    status, body = await graph.send(to=SHEENA, recipient_identity_key_hash="another")
    assert (status, body["error"]["code"]) == (400, 137000)
    assert body["error"]["error_data"]["details"]
    assert not cloud.messages
    assert (await graph.send(to=SHEENA, recipient_identity_key_hash=right))[0] == 200
    await cloud.settled()
    assert not [status for status in endpoint.status_updates if status["status"] == "failed"]
    assert cloud.counts == {"accepted": 1, "delivered": 1, "refused": 1}


async def test_contact_cards_are_a_list(graph: Graph) -> None:
    card = {"name": {"formatted_name": "Ana", "first_name": "Ana"}}
    assert (await graph.send(to=SHEENA, type="contacts", contacts=[card]))[0] == 200


async def test_the_client_takes_a_file_as_the_body(sim: Simulator, business: Business) -> None:
    await business.login()
    headers = {"Authorization": f"Bearer {business.token}", "Content-Type": "image/jpeg"}
    async with business.session.post("/v1/media", data=BytesIO(FILE), headers=headers) as answer:
        [media] = sim.media
        assert answer.status == 200
        assert (await answer.json())["media"] == [{"id": media.id}]
    assert (media.size, media.sha256) == (len(FILE), sha256(FILE).hexdigest())
    async with business.session.post("/v1/media", data=b"", headers=headers) as answer:
        assert (answer.status, (await answer.json())["errors"][0]["code"]) == (400, 1009)
    assert len(sim.media) == 1
