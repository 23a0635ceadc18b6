"""`ackgate check-config`: whether a configuration would start, and what is in force."""

from service.cli.options import AsJson, Config, loaded
from service.cli.output import note, print_json, print_pairs


def check_config(config: Config = None, as_json: AsJson = False) -> None:
    """Check the configuration, and show what is in force, without secrets.

    Exit 0: the service would accept it. Else 2, after one line that names the key at fault.
    """
    settings = loaded(config)
    if as_json:
        print_json(settings.redacted())
    else:
        print_pairs(settings.redacted())
    if settings.open_to_loopback_only:
        note("no API key, or an account without a webhook_token: only this machine may call")
    for key in settings.deprecated_keys():
        note(f"{key}: has no effect any more, leave it out")
