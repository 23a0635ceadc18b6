"""The container's health check: exit 0 if the service answers /health/live."""  # noqa: INP001 -- a script, not a package

import http.client
import ssl
import sys

from service.settings import ServerSettings, SettingsError, load

TIMEOUT_SECONDS = 2
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def connections(server: ServerSettings) -> list[http.client.HTTPConnection]:
    """Return the ways to ask: TLS first where it is set up, as the internal address may lack it."""
    at = server.internal or server
    host = ANYWHERE.get(at.host, at.host)
    ways = [http.client.HTTPConnection(host, at.port, timeout=TIMEOUT_SECONDS)]
    if server.tls_cert_file:
        # The certificate is for the name that clients use, not for this machine's address.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 -- see above
        tls = http.client.HTTPSConnection(host, at.port, timeout=TIMEOUT_SECONDS, context=context)
        ways.insert(0, tls)
    return ways


def is_live(connection: http.client.HTTPConnection) -> bool:
    """Ask once."""
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Return the exit status, after one line if it isn't 0."""
    try:
        server = load().server
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if any(is_live(connection) for connection in connections(server)):
        return 0
    sys.stderr.write("/health/live does not answer\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
