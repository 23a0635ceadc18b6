"""`ackgate alerts`: whether alerts reach somebody."""

import typer

from service.cli.options import AsJson, Config, loaded
from service.cli.output import fail, note, print_json, print_table
from service.workers.alerts import TEST, AlertsError, channels_of

app = typer.Typer(
    name="alerts",
    help="Try the alerts out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """Keep `test` a command of a group, though it is the only one."""


@app.command("test")
def send_test(config: Config = None, as_json: AsJson = False) -> None:
    """Send one test alert to each URL of `alerts.urls_file`, and say which went out.

    Of a URL only its line and its beginning are shown. This reads the configuration file; the
    service need not run. Exit 0: all went out, else 1.
    """
    settings = loaded(config)
    if not settings.alerts.destinations:
        fail("alerts.urls_file is not set, so nobody is alerted")
    try:
        channels = channels_of(settings.alerts)
    except AlertsError as error:
        fail(str(error))
    sent = [(channel, channel.send(TEST)) for channel in channels]
    if as_json:
        items = [{"line": c.line, "scheme": c.scheme, "sent": is_sent} for c, is_sent in sent]
        print_json({"items": items})
    else:
        rows = [(str(c.line), c.scheme, "sent" if is_sent else "failed") for c, is_sent in sent]
        print_table(("line", "url", "result"), rows)
    failed = sum(not is_sent for _, is_sent in sent)
    if failed:
        fail(f"{failed} of {len(sent)} did not go out")
    note("all went out")
