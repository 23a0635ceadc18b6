"""The commands that both sides of the simulator have: faults, and a new beginning."""

import json
from typing import Annotated

import typer
from pydantic import ValidationError

from service.simulator import tables
from service.simulator.faults import OPERATIONS, from_words
from service.simulator.terminal import CA_FILE, URL, AsJson, CaFile, Url, fail, remotely, show, why


def add_to(app: typer.Typer, at: str = "") -> None:
    """Add them for the side whose control routes begin with `at`."""

    @app.command()
    def fault(
        operation: Annotated[str, typer.Argument(help=f"One of {', '.join(OPERATIONS)}.")],
        what: Annotated[list[str], typer.Argument(help="Such as status=500 times=3 wa_id=….")],
        url: Url = URL,
        ca_file: CaFile = CA_FILE,
        as_json: AsJson = False,
    ) -> None:
        """Switch a fault on: status, body, drop, hang, effect, latency, jitter, lose, repeat …."""
        try:
            body = json.loads(from_words(operation, what).model_dump_json(exclude_defaults=True))
        except ValidationError as error:
            fail(why(error))
        answer = remotely(url, ca_file, lambda remote: remote.control("POST", f"{at}/faults", body))
        show(answer, f"fault {answer['id']} is on", as_json=as_json)

    @app.command()
    def faults(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """List the faults that are on."""
        answer = remotely(url, ca_file, lambda remote: remote.control("GET", f"{at}/faults"))
        if as_json or not answer["faults"]:
            show(answer, "no fault is on", as_json=as_json)
        else:
            tables.print_faults(answer["faults"])

    @app.command()
    def clear(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """Switch every fault off."""
        answer = remotely(url, ca_file, lambda remote: remote.control("DELETE", f"{at}/faults"))
        show(answer, "no fault is on", as_json=as_json)

    @app.command()
    def reset(url: Url = URL, ca_file: CaFile = CA_FILE, as_json: AsJson = False) -> None:
        """Forget everything, and begin again as it was started."""
        answer = remotely(url, ca_file, lambda remote: remote.control("POST", f"{at}/reset"))
        show(answer, "everything is forgotten", as_json=as_json)
