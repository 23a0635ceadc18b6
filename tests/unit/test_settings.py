"""The configuration: what it accepts, what it refuses, and what it says then."""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.model.gate import Rules
from service.settings import Settings, SettingsError, keys, load
from service.store.sqlite_files import path_of

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-nobody-may-see"
DIGEST = "0123456789abcdef" * 4
ACCOUNT = f"""
[accounts.main]
base_url = "https://127.0.0.1:9090"
username = "ackgate"
password = "{SECRET}"
"""
WITH_TOKEN = f'{ACCOUNT}webhook_token = "token-of-sixteen-and-more"\n'
APP_SECRET = "0123456789abcdef0123456789abcdef"
APP = f"""
[apps.meta]
app_secret = "{APP_SECRET}"
verify_token = "verify-{SECRET}"
"""
CLOUD = f"""
[accounts.shop]
kind = "cloud"
app = "meta"
phone_number_id = "106540352242922"
access_token = "{SECRET}"
"""
PUBLIC_URL = "[server]\npublic_url = 'https://hooks.example.com'\n"
WITH_KEY = f'[api.keys.crm]\nrole = "operator"\nsha256 = "{DIGEST}"\n'


def settings(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    file = folder / "ackgate.toml"
    file.write_text(toml, encoding="utf-8")
    return load(file, environ or {})


def refusal(folder: Path, toml: str = "", environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(folder, toml, environ)
    text = str(caught.value)
    assert text.isprintable(), "one line, which can be printed"
    assert SECRET not in text
    return text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate and its key, each in a file."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class TestTheFile:
    def test_an_empty_file_gives_the_defaults(self, tmp_path: Path) -> None:
        got = settings(tmp_path)
        assert (got.server.host, got.server.port) == ("127.0.0.1", 8080)
        assert got.server.max_body_bytes == 4_194_304
        assert (got.server.drain_seconds, got.server.shutdown_seconds) == (2, 10)
        assert got.server.body_timeout_seconds == 10
        assert got.server.max_connections == got.server.max_queue == 4096
        assert got.server.max_in_flight_bytes == 50_331_648
        assert got.server.internal is None
        assert got.database.url == "sqlite:///var/ackgate.db"
        assert got.reconciler.sweep_after_seconds == 3600
        assert got.reconciler.sweep_per_second == 1
        assert got.reconciler.verify_per_second == 20
        assert (got.retention.journal_days, got.retention.quarantined_days) == (30, 90)
        assert got.retention.relay_days == 14
        assert (got.log.level, got.log.format) == ("info", "auto")
        assert (got.policy.mode, got.policy.delay_seconds) == ("manual", 0)
        assert (got.policy.max_changes, got.policy.per_seconds) == (3, 86_400)
        assert got.accounts == {}
        assert got.relays == {}
        assert got.alerts.urls is None
        assert (got.alerts.pending_minutes, got.alerts.relay_behind_minutes) == (60, 15)
        assert got.api.keys == {}

    def test_an_account_has_the_defaults_of_the_contract(self, tmp_path: Path) -> None:
        account = settings(tmp_path, ACCOUNT).onprem_accounts["main"]
        assert account.kind == "onprem"
        assert account.verify_tls is True
        assert (account.timeout_seconds, account.max_in_flight) == (60, 16)
        assert account.webhook_token is None
        assert account.ca_file is None
        assert account.password.get_secret_value() == SECRET

    def test_the_commented_file_holds_the_defaults_and_nothing_else(self, tmp_path: Path) -> None:
        assert load(ROOT / "config/ackgate.toml", {}) == settings(tmp_path)

    def test_every_key_stands_in_the_commented_file(self) -> None:
        missing = set(keys()) - keys_in_comments(ROOT / "config/ackgate.toml")
        assert not missing

    def test_the_commented_file_is_valid_with_its_comments_taken_away(self) -> None:
        tree = tomllib.loads(uncommented(ROOT / "config/ackgate.toml"))
        assert set(tree) == set(Settings.model_fields)

    def test_the_development_file_starts_on_loopback_with_a_policy(
        self, certificate: tuple[Path, Path]
    ) -> None:
        got = load(
            ROOT / "config/development.toml",
            {
                "ACKGATE_ACCOUNTS__MAIN__CA_FILE": str(certificate[0]),
                "ACKGATE_ACCOUNTS__SHOP__CA_FILE": str(certificate[0]),
            },
        )
        assert list(got.accounts) == ["shop", "main"]
        account = got.onprem_accounts["main"]
        assert got.open_to_loopback_only
        assert account.webhook_token is not None
        assert account.webhook_token.get_secret_value() == "development-webhook-token"
        policies = got.policies("main")
        assert (policies.of("16315551000").name, policies.of("16315551000").mode) == (
            "default",
            "auto",
        )
        assert policies.of("16315560000").mode == "manual"
        assert policies.default.delay_seconds == 3

    def test_the_argument_comes_before_the_environment_before_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name, port in (("config/ackgate.toml", 1), ("by_env.toml", 2), ("by_arg.toml", 3)):
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"[server]\nport = {port}\n")
        assert load(None, {}).server.port == 1
        assert load(None, {"ACKGATE_CONFIG": "by_env.toml"}).server.port == 2
        assert load(Path("by_arg.toml"), {"ACKGATE_CONFIG": "by_env.toml"}).server.port == 3

    def test_a_missing_file_is_one_line_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"nowhere\.toml: no such configuration file"):
            load(tmp_path / "nowhere.toml", {})

    def test_a_folder_instead_of_a_file_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="can't be read"):
            load(tmp_path, {})

    @pytest.mark.parametrize(
        "content",
        [b"server = ", b"[server\n", b"\xff\xfe", b"x = " + b"[" * 100_000, b"x = " + b"9" * 5_000],
        ids=["no value", "no bracket", "no UTF-8", "nested deeply", "a huge number"],
    )
    def test_what_is_no_toml_is_one_line_that_names_the_file(
        self, tmp_path: Path, content: bytes
    ) -> None:
        file = tmp_path / "ackgate.toml"
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"ackgate\.toml: not TOML") as caught:
            load(file, {})
        assert str(caught.value).isprintable()

    def test_a_huge_whole_number_is_one_line(self, tmp_path: Path) -> None:
        assert "server.port: " in refusal(tmp_path, f"[server]\nport = {'9' * 4_000}")


class TestUnknownAndWrong:
    @pytest.mark.parametrize(
        ("toml", "key"),
        [
            ("colour = 1", "colour"),
            ("[server]\nprot = 1", "server.prot"),
            ("[server.internal]\nhots = 'x'", "server.internal.hots"),
            (ACCOUNT + "colour = 1", "accounts.main.colour"),
            (ACCOUNT + "policy.colour = 1", "accounts.main.policy.colour"),
            ("[[policy.rules]]\nname='a'\nwa_id=['1']", "policy.rules[0].wa_id"),
            ("[api]\ncolour = 1", "api.colour"),
            (WITH_KEY + "colour = 1", "api.keys.crm.colour"),
            ("[colour]\nx = 1", "colour"),
            ("[Server]\nport = 1", "Server"),
            ("[server]\nPort = 1", "server.Port"),
            ("'server.port' = 1", "server.port"),
            (f"colour = {'[' * 300}{']' * 300}", "colour"),
        ],
    )
    def test_an_unknown_key_is_named_with_its_whole_path(
        self, tmp_path: Path, toml: str, key: str
    ) -> None:
        said = refusal(tmp_path, toml)
        assert said.startswith(f"{key}: unknown key")
        assert "ackgate.toml" in said

    def test_a_misspelt_key_is_told_its_likely_spelling(self, tmp_path: Path) -> None:
        assert "did you mean port?" in refusal(tmp_path, "[server]\nprot = 1")
        said = refusal(tmp_path, ACCOUNT.replace("username", "usrname"))
        assert said.startswith("accounts.main.usrname: unknown key; did you mean username?")

    @pytest.mark.parametrize(
        ("toml", "key"),
        [
            ("[server]\nport = 65536", "server.port"),
            ("[server]\nport = -1", "server.port"),
            ("[server]\nport = true", "server.port"),
            ("[server]\nport = '8080'", "server.port"),
            ("[server]\nport = 80.5", "server.port"),
            ("[server]\nhost = ''", "server.host"),
            ("[server]\nhost = 5", "server.host"),
            ("[server]\ndrain_seconds = nan", "server.drain_seconds"),
            ("[server]\nshutdown_seconds = inf", "server.shutdown_seconds"),
            ("[server]\ndrain_seconds = -1", "server.drain_seconds"),
            ("[server]\nbody_timeout_seconds = 0", "server.body_timeout_seconds"),
            ("[server]\nmax_body_bytes = 0", "server.max_body_bytes"),
            ("[server]\nmax_in_flight_bytes = 5", "server.max_in_flight_bytes"),
            ("[server]\nmax_queue = 0", "server.max_queue"),
            ("[server]\npublic_url = 'hooks.example.com'", "server.public_url"),
            ("server = 5", "server"),
            ("server = 1979-05-27", "server"),
            ("[server]\nport = {x = 1}", "server.port"),
            ("[server]\nhost = 1979-05-27", "server.host"),
            (f"[server]\nport = {'[' * 300}{']' * 300}", "server.port"),
            ("[policy.rules]\nname = 'vip'", "policy.rules"),
            ("[server]\ninternal.port = 8080", "server.internal.port"),
            ("[database]\nurl = 'mysql://x'", "database.url"),
            ("[database]\nurl = 'sqlite:///'", "database.url"),
            ("[database]\nurl = 'sqlite:///:memory:'", "database.url"),
            ("[database]\nurl = 'sqlite:///var/'", "database.url"),
            ("[database]\nurl = 'sqlite:///a?mode=ro'", "database.url"),
            ('[database]\nurl = "sqlite:///a\\u0000b"', "database.url"),
            ("[policy]\nmode = 'sometimes'", "policy.mode"),
            ("[policy]\ndelay_seconds = -1", "policy.delay_seconds"),
            ("[policy]\ndelay_seconds = 1e300", "policy.delay_seconds"),
            ("[policy]\nmax_changes = 0", "policy.max_changes"),
            ("[policy]\nper_seconds = 0", "policy.per_seconds"),
            ("[policy]\nrules = 5", "policy.rules"),
            ("[reconciler]\nsweep_per_second = 0", "reconciler.sweep_per_second"),
            ("[reconciler]\nverify_per_second = 0", "reconciler.verify_per_second"),
            ("[retention]\njournal_days = -1", "retention.journal_days"),
            ("[retention]\nquarantined_days = 1e9", "retention.quarantined_days"),
            ("[log]\nlevel = 'loud'", "log.level"),
            ("[log]\nformat = 'xml'", "log.format"),
            ("[accounts.Main]\nkind = 'onprem'", "accounts.Main"),
            ("[accounts.'a\\nb']\nkind = 'onprem'", "accounts."),
            ("[api.keys.cr-m]\nrole = 'gate'", "api.keys.cr-m"),
            ("[api.keys.crm]\nrole = 'root'", "api.keys.crm.role"),
            ("[api.keys.crm]\nrole = 'gate'", "api.keys.crm.sha256"),
            ("[accounts]\nmain = 'x'", "accounts.main"),
            ("accounts = 'x'", "accounts"),
            ("api.keys = 'x'", "api.keys"),
        ],
    )
    def test_a_bad_value_names_its_key_and_file(self, tmp_path: Path, toml: str, key: str) -> None:
        said = refusal(tmp_path, toml)
        assert said.startswith(key)
        assert said.endswith("ackgate.toml)")

    def test_a_bad_name_is_named_itself(self, tmp_path: Path) -> None:
        for name in ("accounts.Main", "apps.Main", "api.keys.cr-m"):
            assert refusal(tmp_path, f"[{name}]").startswith(f"{name}: names are made of a-z")

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("kind = 'telepathy'", "kind"),
            ("webhook_token = 'short'", "webhook_token"),
            ("webhook_token = 'with/slash-and-sixteen'", "webhook_token"),
            ("webhook_token = 5", "webhook_token"),
            ("phone_number = '16315550100'", "phone_number"),
            ("timeout_seconds = 0", "timeout_seconds"),
            ("max_in_flight = 0", "max_in_flight"),
            ("ca_file = 'nowhere.pem'", "ca_file"),
            ("ca_file = ''", "ca_file"),
            ('ca_file = "a\\u0000b"', "ca_file"),
            ("verify_tls = 'no'", "verify_tls"),
            ("webhook_auth = 'none'", "webhook_auth"),
            ("webhook_url = 'bot.example.com'", "webhook_url"),
            ("webhook_url = 'http://bot.example.com'", "webhook_url"),
            ("webhook_url = 'https://bot.example.com/a b'", "webhook_url"),
            ("webhook_url = 'https://me:and-mine@bot.example.com/'", "webhook_url"),
            ("policy.mode = 'never'", "policy.mode"),
        ],
    )
    def test_a_bad_value_of_an_account_names_its_key(
        self, tmp_path: Path, line: str, key: str
    ) -> None:
        assert refusal(tmp_path, ACCOUNT + line).startswith(f"accounts.main.{key}: ")

    @pytest.mark.parametrize("key", ["base_url", "username", "password"])
    def test_an_account_needs_its_address_and_its_login(self, tmp_path: Path, key: str) -> None:
        lines = [line for line in ACCOUNT.splitlines() if not line.startswith(key)]
        said = refusal(tmp_path, "\n".join(lines))
        assert said.startswith(f"accounts.main.{key}: missing")
        assert f"ACKGATE_ACCOUNTS__MAIN__{key.upper()}" in said

    @pytest.mark.parametrize("key", ["base_url", "username", "password"])
    def test_what_an_account_needs_must_not_be_empty(self, tmp_path: Path, key: str) -> None:
        lines = [f'{key} = ""' if x.startswith(key) else x for x in ACCOUNT.splitlines()]
        assert refusal(tmp_path, "\n".join(lines)).startswith(f"accounts.main.{key}: must be")

    def test_a_colon_in_the_username_is_refused(self, tmp_path: Path) -> None:
        toml = ACCOUNT.replace('"ackgate"', '"ack:gate"')
        assert refusal(tmp_path, toml).startswith("accounts.main.username: must not hold a colon")

    @pytest.mark.parametrize(
        "url",
        [
            "http://client.example.com",
            "http://127.0.0.1.example.com",
            "https://",
            "ftp://127.0.0.1",
            "https://user:pass@127.0.0.1",
            "https://127.0.0.1/?a=b",
            "https://127.0.0.1/#a",
            "https://127.0.0.1:70000",
            "https://127.0.0.1:0",
            "https://[::1",
            "127.0.0.1:9090",
        ],
    )
    def test_a_clients_url_is_absolute_https_unless_it_is_on_this_machine(
        self, tmp_path: Path, url: str
    ) -> None:
        toml = ACCOUNT.replace("https://127.0.0.1:9090", url)
        assert refusal(tmp_path, toml).startswith("accounts.main.base_url: must be")

    @pytest.mark.parametrize(
        "url", ["http://localhost:1", "http://127.1.2.3", "http://[::1]:9", "https://a.example/x/"]
    )
    def test_plain_http_is_for_loopback_and_a_last_slash_is_dropped(
        self, tmp_path: Path, url: str
    ) -> None:
        got = settings(tmp_path, ACCOUNT.replace("https://127.0.0.1:9090", url))
        assert got.onprem_accounts["main"].base_url == url.rstrip("/")

    def test_certificates_are_verified_except_on_this_machine(self, tmp_path: Path) -> None:
        line = "verify_tls = false\n"
        assert settings(tmp_path, ACCOUNT + line).onprem_accounts["main"].verify_tls is False
        elsewhere = (ACCOUNT + line).replace("127.0.0.1", "client.example.com")
        assert refusal(tmp_path, elsewhere).startswith("accounts.main.verify_tls: ")

    def test_alerts_have_a_url_a_line_and_comments(self, tmp_path: Path) -> None:
        urls = tmp_path / "urls"
        lines = "# who is told", "", "  mailtos://user:secret@example.com", "NTFYS://ntfy.sh/x"
        urls.write_text("\n".join([*lines, "NTFYS://ntfy.sh/x"]) + "\n")
        read = settings(tmp_path, f"[alerts]\nurls_file = '{urls}'").alerts
        assert [(url.line, url.scheme) for url in read.destinations] == [
            (3, "mailtos"),
            (4, "ntfys"),
        ]
        assert read.destinations[0].text == "mailtos://user:secret@example.com"
        assert "secret" not in str(settings(tmp_path, f"[alerts]\nurls_file = '{urls}'").redacted())

    def test_nobody_is_alerted_without_urls(self, tmp_path: Path) -> None:
        read = settings(tmp_path, "[alerts]\npending_minutes = 5").alerts
        assert read.destinations == []
        assert (read.pending_minutes, read.relay_behind_minutes) == (5, 15)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("# nobody\n", "must hold an Apprise URL, one a line"),
            ("json://a\na-secret\n", "line 2 must be an Apprise URL, such as ntfys://host/topic"),
            ("json://\n", "line 1 must be an Apprise URL, such as ntfys://host/topic"),
            ("json://a\tsecret\n", "line 1 must be an Apprise URL, such as ntfys://host/topic"),
        ],
    )
    def test_a_line_that_is_no_url_is_named_and_not_shown(
        self, tmp_path: Path, text: str, problem: str
    ) -> None:
        urls = tmp_path / "urls"
        urls.write_text(text)
        said = refusal(tmp_path, f"[alerts]\nurls_file = '{urls}'")
        assert said == f"alerts.urls: {problem} (in the file that alerts.urls_file names)"

    @pytest.mark.parametrize("key", ["pending_minutes", "relay_behind_minutes"])
    @pytest.mark.parametrize("value", ["0", "-1", "1e9", "'60'"])
    def test_minutes_are_positive(self, tmp_path: Path, key: str, value: str) -> None:
        assert refusal(tmp_path, f"[alerts]\n{key} = {value}").startswith(f"alerts.{key}: ")


class TestEnvironment:
    def test_it_comes_before_the_file(self, tmp_path: Path) -> None:
        environ = {
            "ACKGATE_SERVER__PORT": "0",
            "ACKGATE_SERVER__DRAIN_SECONDS": "0.5",
            "ACKGATE_DATABASE__URL": "sqlite:////tmp/x.db",
            "ACKGATE_ACCOUNTS__MAIN__VERIFY_TLS": "False",
            "ACKGATE_ACCOUNTS__MAIN__PASSWORD": "0123",
        }
        got = settings(tmp_path, "[server]\nport = 1\n" + ACCOUNT, environ)
        assert (got.server.port, got.server.drain_seconds) == (0, 0.5)
        assert path_of(got.database.url) == Path("/tmp/x.db")
        assert got.onprem_accounts["main"].verify_tls is False
        assert got.onprem_accounts["main"].password.get_secret_value() == "0123"

    def test_it_makes_tables_that_the_file_lacks(self, tmp_path: Path) -> None:
        environ = {
            "ACKGATE_ACCOUNTS__SHOP_2__BASE_URL": "https://client.example.com",
            "ACKGATE_ACCOUNTS__SHOP_2__USERNAME": "ackgate",
            "ACKGATE_ACCOUNTS__SHOP_2__PASSWORD": SECRET,
            "ACKGATE_ACCOUNTS__SHOP_2__WEBHOOK_AUTH": "proxy",
            "ACKGATE_ACCOUNTS__SHOP_2__POLICY__MODE": "auto",
            "ACKGATE_API__KEYS__CRM__ROLE": "reader",
            "ACKGATE_API__KEYS__CRM__SHA256": DIGEST,
            "ACKGATE_SERVER__INTERNAL__PORT": "0",
        }
        got = settings(tmp_path, "", environ)
        assert got.policies("shop_2").default.mode == "auto"
        assert got.api.keys["crm"].role == "reader"
        assert got.server.internal is not None
        assert got.server.internal.host == "127.0.0.1"

    @pytest.mark.parametrize(
        "text",
        [
            '[{"name": "vip", "wa_ids": ["1", "2"], "mode": "auto"}]',
            "[{name = 'vip', wa_ids = ['1', '2'], mode = 'auto'}]",
        ],
    )
    def test_lists_are_read_as_json_or_toml(self, tmp_path: Path, text: str) -> None:
        rules = settings(tmp_path, "", {"ACKGATE_POLICY__RULES": text}).policy.rules
        assert [(rule.name, rule.wa_ids, rule.mode) for rule in rules] == [
            ("vip", ("1", "2"), "auto")
        ]

    @pytest.mark.parametrize(
        "name", ["ACKGATE_CONFIG", "ACKGATE_URL", "ACKGATE_KEY", "ACKGATE_PORT", "OTHER__THING"]
    )
    def test_names_without_two_underscores_are_not_read(self, tmp_path: Path, name: str) -> None:
        assert settings(tmp_path, "", {name: "anything"}) == settings(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            "ACKGATE_SERVER__PROT",
            "ACKGATE_SERVER__PORT__X",
            "ACKGATE_SRV__PORT",
            "ACKGATE___PORT",
            "ACKGATE_SERVER__",
            "ACKGATE_ACCOUNTS__MAIN__COLOUR",
            "ACKGATE_ACCOUNTS__MA-IN__PASSWORD",
            "ACKGATE_ACCOUNTS____PASSWORD",
            "ACKGATE_SERVER__INTERNAL",
            "ACKGATE_ACCOUNTS__MAIN",
            "ACKGATE_SERVER__port",
            "ACKGATE_APPS__META",
            "ACKGATE_APPS__META__COLOUR",
            "ACKGATE_ACCOUNTS__SHOP__APP_SECRET",
            "ACKGATE_POLICY__RULES__0__NAME",
        ],
    )
    def test_an_unknown_path_stops_the_start_and_names_the_variable(
        self, tmp_path: Path, name: str
    ) -> None:
        said = refusal(tmp_path, "", {name: SECRET})
        assert said.endswith(f"(in environment variable {name})")

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("ACKGATE_SERVER__port", "server.port: write the name in capitals"),
            ("ACKGATE_SERVER__INTERNAL", "server.internal: a table; set its keys one by one"),
            ("ACKGATE_ACCOUNTS__MAIN", "accounts.main: a table; set its keys one by one"),
            ("ACKGATE_API__KEYS__CR-M__SHA256", "api.keys.cr-m.sha256: names are made of"),
            ("ACKGATE_SERVER__PROT", "server.prot: unknown key; correct or remove it"),
        ],
    )
    def test_what_is_wrong_with_a_name_is_said(
        self, tmp_path: Path, name: str, problem: str
    ) -> None:
        assert refusal(tmp_path, "", {name: "1"}).startswith(problem)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ACKGATE_SERVER__PORT", "many"),
            ("ACKGATE_SERVER__PORT", ""),
            ("ACKGATE_SERVER__PORT", "1\nx = 2"),
            ("ACKGATE_SERVER__PORT", "70000"),
            ("ACKGATE_SERVER__PORT", "9" * 5_000),
            ("ACKGATE_SERVER__HOST", ""),
            ("ACKGATE_SERVER__HOST", "a\nb"),
            ("ACKGATE_SERVER__DRAIN_SECONDS", "NaN"),
            ("ACKGATE_POLICY__RULES", "vip"),
            ("ACKGATE_POLICY__RULES", '["\\ud800"]'),
            ("ACKGATE_POLICY__RULES", "[" * 100_000),
            ("ACKGATE_POLICY__RULES", '[{"name": "default", "wa_ids": ["1"]}]'),
            ("ACKGATE_POLICY__RULES", '[{"wa_ids": ["1"]}]'),
            ("ACKGATE_ACCOUNTS__MAIN__WEBHOOK_TOKEN", "short"),
            ("ACKGATE_ACCOUNTS__MAIN__WEBHOOK_TOKEN_FILE", "/nowhere"),
            ("ACKGATE_ACCOUNTS__MAIN__WEBHOOK_TOKEN_FILE", ""),
            ("ACKGATE_ACCOUNTS__MAIN__PASSWORD", "\udcff"),
        ],
    )
    def test_a_bad_value_names_its_key_and_its_variable(
        self, tmp_path: Path, name: str, value: str
    ) -> None:
        said = refusal(tmp_path, ACCOUNT, {name: value})
        assert said.startswith(name.removeprefix("ACKGATE_").lower().replace("__", "."))
        assert said.endswith(f"(in environment variable {name})")

    def test_it_cannot_make_up_for_a_value_that_should_be_a_table(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, "server = 5", {"ACKGATE_SERVER__PORT": "1"})
        assert said.startswith("server: must be a table")

    def test_it_replaces_a_table_that_should_be_a_value(self, tmp_path: Path) -> None:
        toml = "[server]\nport = {x = 1}\n[policy.rules]\nname = 'vip'"
        environ = {"ACKGATE_SERVER__PORT": "1", "ACKGATE_POLICY__RULES": "[]"}
        got = settings(tmp_path, toml, environ)
        assert (got.server.port, got.policy.rules) == (1, ())

    @pytest.mark.parametrize("text", ["12345678", "true", "null", "{}", "[1]", '"quoted"', "1.0"])
    def test_text_is_taken_as_it_is(self, tmp_path: Path, text: str) -> None:
        environ = {
            "ACKGATE_ACCOUNTS__MAIN__USERNAME": text,
            "ACKGATE_ACCOUNTS__MAIN__PASSWORD": text,
        }
        account = settings(tmp_path, ACCOUNT, environ).onprem_accounts["main"]
        assert (account.username, account.password.get_secret_value()) == (text, text)

    def test_no_variable_without_the_prefix_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERVER", '{"port": 1}')
        monkeypatch.setenv("SERVER__PORT", "1")
        assert settings(tmp_path).server.port == 8080
        assert Settings.model_validate({}).server.port == 8080


class TestDeprecated:
    def test_a_key_without_effect_is_named_where_it_is_set(self, tmp_path: Path) -> None:
        key = "server.max_connections"
        for toml, environ in (
            (f"{key} = 4096", {}),
            ("", {"ACKGATE_SERVER__MAX_CONNECTIONS": "9"}),
        ):
            [line] = settings(tmp_path, toml, environ).deprecated_keys()
            assert line.startswith(f"{key} has no effect any more: ")
        assert settings(tmp_path, "server.max_queue = 1").deprecated_keys() == []
        assert load(ROOT / "config/ackgate.toml", {}).deprecated_keys() == []

    def test_its_value_is_checked_all_the_same(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, "server.max_connections = 0")
        assert said.startswith("server.max_connections: must be greater than or equal to 1")


class TestSecrets:
    def test_each_can_be_given_as_a_file(self, tmp_path: Path) -> None:
        for name, content in (("p", f"{SECRET}\n"), ("t", "x" * 16), ("k", f"{DIGEST}\r\n")):
            (tmp_path / name).write_text(content, newline="")
        environ = {
            "ACKGATE_ACCOUNTS__MAIN__WEBHOOK_TOKEN_FILE": str(tmp_path / "t"),
            "ACKGATE_API__KEYS__CRM__SHA256_FILE": str(tmp_path / "k"),
        }
        lines = [x for x in ACCOUNT.splitlines() if not x.startswith("password")]
        toml = "\n".join([*lines, f'password_file = "{tmp_path / "p"}"'])
        got = settings(tmp_path, toml + '\n[api.keys.crm]\nrole = "gate"', environ)
        token = got.onprem_accounts["main"].webhook_token
        assert got.onprem_accounts["main"].password.get_secret_value() == SECRET
        assert token is not None
        assert token.get_secret_value() == "x" * 16
        assert got.api.keys["crm"].sha256.get_secret_value() == DIGEST

    def test_both_forms_in_one_place_are_refused(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, ACCOUNT + 'password_file = "x"')
        assert said.startswith("accounts.main.password_file: given twice")
        prefix = "ACKGATE_ACCOUNTS__MAIN__PASSWORD"
        both = {prefix: SECRET, f"{prefix}_FILE": "x"}
        for environ in (both, dict(reversed(both.items()))):
            said = refusal(tmp_path, ACCOUNT, environ)
            assert said.startswith("accounts.main.password_file: given twice")

    def test_either_form_in_the_environment_outdoes_the_other_in_the_file(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "p").write_text("another")
        name = "ACKGATE_ACCOUNTS__MAIN__PASSWORD"
        got = settings(tmp_path, ACCOUNT, {f"{name}_FILE": str(tmp_path / "p")})
        assert got.onprem_accounts["main"].password.get_secret_value() == "another"
        toml = ACCOUNT.replace("password", "password_file")
        got = settings(tmp_path, toml, {name: "another"})
        assert got.onprem_accounts["main"].password.get_secret_value() == "another"

    def test_the_environment_outdoes_both_forms_in_the_file(self, tmp_path: Path) -> None:
        name = "ACKGATE_ACCOUNTS__MAIN__PASSWORD"
        got = settings(tmp_path, ACCOUNT + 'password_file = "x"', {name: "another"})
        assert got.onprem_accounts["main"].password.get_secret_value() == "another"

    def test_the_environment_hides_no_unknown_key_of_the_file(self, tmp_path: Path) -> None:
        toml = "[database]\nurl_file = 'x'"
        said = refusal(tmp_path, toml, {"ACKGATE_DATABASE__URL": "sqlite:///x"})
        assert said.startswith("database.url_file: unknown key")

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "does not exist"),
            (b"", "empty"),
            (b"\n", "empty"),
            (b"\xff\xff", "can't be read"),
            (b"x" * 70_000, "too large"),
            (f"{SECRET}\n{SECRET}".encode(), "must have at least 16 characters"),
        ],
        ids=["missing", "empty", "line break alone", "no text", "large", "two lines"],
    )
    def test_a_bad_file_names_the_key(
        self, tmp_path: Path, content: bytes | None, problem: str
    ) -> None:
        if content is not None:
            (tmp_path / "t").write_bytes(content)
        said = refusal(tmp_path, ACCOUNT + f'webhook_token_file = "{tmp_path / "t"}"')
        assert said.startswith("accounts.main.webhook_token")
        assert problem in said

    def test_a_folder_or_a_number_is_no_file(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, ACCOUNT + f'webhook_token_file = "{tmp_path}"')
        assert said.startswith("accounts.main.webhook_token_file: the file can't be read")
        said = refusal(tmp_path, ACCOUNT + "webhook_token_file = 5")
        assert said.startswith("accounts.main.webhook_token_file: must be the path")

    @pytest.mark.parametrize(
        "line",
        [
            f'webhook_token = "{SECRET}/"',
            f'webhook_token = ["{SECRET}"]',
            f'password_file = "{SECRET}"',
            f'phone_number = "{SECRET}"',
            f'kind = "{SECRET}"',
            f'policy.mode = "{SECRET}"',
            f'policy.rules = ["{SECRET}"]',
            f'ca_file = "{SECRET}"',
        ],
    )
    def test_no_error_echoes_a_value(self, tmp_path: Path, line: str) -> None:
        toml = "\n".join(x for x in ACCOUNT.splitlines() if not x.startswith("password"))
        refusal(tmp_path, f"{toml}\n{line}")

    def test_they_show_nowhere(self, tmp_path: Path) -> None:
        got = settings(tmp_path, WITH_TOKEN + WITH_KEY)
        shown = f"{got!r} {got} {got.redacted()}"
        for secret in (SECRET, "token-of-sixteen", DIGEST):
            assert secret not in shown

    def test_the_redacted_tree_shows_all_else(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        toml = f'{WITH_TOKEN}ca_file = "{certificate[0]}"\n'
        toml += "policy.rules = [{name='vip', wa_ids=['1']}]\n" + WITH_KEY
        shown = settings(tmp_path, toml).redacted()
        main: dict[str, Any] = shown["accounts"]["main"]
        assert (main["password"], main["webhook_token"], main["username"]) == ("…", "…", "ackgate")
        assert main["ca_file"] == str(certificate[0])
        assert main["policy"]["rules"][0]["wa_ids"] == ["1"]
        assert shown["api"]["keys"]["crm"] == {
            "role": "operator",
            "sha256": "…",
            "accounts": [],
            "expires_at": None,
        }
        assert shown["server"]["tls_cert_file"] is None

    def test_a_digest_is_known_in_either_case_but_once(self, tmp_path: Path) -> None:
        upper = WITH_KEY.replace(DIGEST, DIGEST.upper())
        key = settings(tmp_path, upper).api.keys["crm"]
        assert key.sha256.get_secret_value() == DIGEST
        said = refusal(tmp_path, WITH_KEY + upper.replace("crm", "crm2"))
        assert said.startswith("api.keys.crm2.sha256: the same as that of api.keys.crm")
        said = refusal(tmp_path, WITH_KEY.replace(DIGEST, "0" * 63))
        assert said.startswith("api.keys.crm.sha256: must be the SHA-256")

    def test_a_key_is_for_accounts_that_there_are(self, tmp_path: Path) -> None:
        got = settings(tmp_path, f"{WITH_TOKEN}{WITH_KEY}accounts = ['main']")
        assert got.api.keys["crm"].accounts == ("main",)
        said = refusal(tmp_path, f"{WITH_TOKEN}{WITH_KEY}accounts = ['main', 'other']")
        assert said.startswith("api.keys.crm.accounts[1]: there is no such account")

    @pytest.mark.parametrize("text", ["2027-01-31T00:00:00Z", "'2027-01-31T01:00:00+01:00'"])
    def test_a_key_expires_at_a_time_with_its_offset(self, tmp_path: Path, text: str) -> None:
        got = settings(tmp_path, f"{WITH_KEY}expires_at = {text}")
        assert got.api.keys["crm"].expires_ms == 1_801_353_600_000
        variable = {"ACKGATE_API__KEYS__CRM__EXPIRES_AT": text.strip("'")}
        assert settings(tmp_path, WITH_KEY, variable) == got

    @pytest.mark.parametrize("text", ["2027-01-31T00:00:00", "2027-01-31", "'soon'", "5", "true"])
    def test_a_time_without_an_offset_may_be_any_and_is_refused(
        self, tmp_path: Path, text: str
    ) -> None:
        said = refusal(tmp_path, f"{WITH_KEY}expires_at = {text}")
        assert said.startswith("api.keys.crm.expires_at: must be a time with its offset")


class TestOpenness:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
    def test_without_keys_it_starts_on_loopback(self, tmp_path: Path, host: str) -> None:
        assert settings(tmp_path, f"[server]\nhost = '{host}'").open_to_loopback_only

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "ackgate.example.com"])
    def test_without_keys_it_starts_nowhere_else(self, tmp_path: Path, host: str) -> None:
        said = refusal(tmp_path, f"[server]\nhost = '{host}'\n" + WITH_TOKEN)
        assert said.startswith("server.host: ")
        assert "api.keys.NAME" in said

    def test_every_listening_host_counts(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, "[server.internal]\nhost = '10.0.0.5'")
        assert said.startswith("server.internal.host: ")

    def test_a_public_url_needs_a_key_and_the_error_names_both_cures(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, PUBLIC_URL + WITH_TOKEN)
        assert said.startswith("server.public_url: needs a key of the API: set api.keys.NAME")
        assert "or remove public_url" in said
        assert settings(tmp_path, PUBLIC_URL + WITH_TOKEN + WITH_KEY).server.public_url

    @pytest.mark.parametrize("public", ["", PUBLIC_URL, "[server]\nhost = '0.0.0.0'\n"])
    def test_in_public_each_account_needs_a_token_or_a_proxy_and_the_error_names_both(
        self, tmp_path: Path, public: str
    ) -> None:
        """A key alone makes an installation public, as a public URL and a host do."""
        second = WITH_TOKEN + ACCOUNT.replace("main", "second")
        said = refusal(tmp_path, public + second + WITH_KEY)
        assert said.startswith("accounts.second.webhook_token: missing")
        assert "set it, or webhook_auth = 'proxy'" in said
        got = settings(tmp_path, f"{public}{second}webhook_auth = 'proxy'\n{WITH_KEY}")
        assert not got.open_to_loopback_only

    def test_on_loopback_without_a_key_an_account_needs_no_token(self, tmp_path: Path) -> None:
        assert settings(tmp_path, ACCOUNT).open_to_loopback_only

    def test_with_keys_and_tokens_it_is_open_to_all(self, tmp_path: Path) -> None:
        got = settings(tmp_path, "[server]\nhost = '0.0.0.0'\n" + WITH_TOKEN + WITH_KEY)
        assert not got.open_to_loopback_only


class TestTls:
    def test_certificate_and_key_come_together(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        both = f'[server]\ntls_cert_file = "{cert}"\ntls_key_file = "{key}"'
        assert settings(tmp_path, both).server.tls_key_file == key
        said = refusal(tmp_path, f'[server]\ntls_cert_file = "{cert}"')
        assert said.startswith("server.tls_key_file: missing")
        said = refusal(tmp_path, f'[server]\ntls_key_file = "{key}"')
        assert said.startswith("server.tls_cert_file: missing")

    def test_what_is_no_pair_is_refused(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        cert, _ = certificate
        said = refusal(tmp_path, f'[server]\ntls_cert_file = "{cert}"\ntls_key_file = "{cert}"')
        assert said.startswith("server.tls_cert_file: not a PEM certificate")
        said = refusal(tmp_path, f'[server]\ntls_cert_file = "{cert}"\ntls_key_file = "nowhere"')
        assert said.startswith("server.tls_key_file: the file does not exist")

    def test_the_clients_authority_is_read(
        self, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        got = settings(tmp_path, ACCOUNT + f'ca_file = "{cert}"')
        assert got.onprem_accounts["main"].ca_file == cert
        said = refusal(tmp_path, ACCOUNT + f'ca_file = "{key}"')
        assert said.startswith("accounts.main.ca_file: the file holds no certificate")


class TestPolicies:
    GENERAL = """
[policy]
mode = "auto"
delay_seconds = 60
max_changes = 5
[[policy.rules]]
name = "vip"
wa_id_prefixes = ["1631555"]
mode = "manual"
"""
    OWN = """
[accounts.main.policy]
delay_seconds = 5
[[accounts.main.policy.rules]]
name = "vip"
wa_ids = ["16315551000"]
max_changes = 1
"""

    def test_an_account_overrides_the_general_policy_key_by_key(self, tmp_path: Path) -> None:
        default = settings(tmp_path, self.GENERAL + ACCOUNT + self.OWN).policies("main").default
        assert default.name == "default"
        assert (default.mode, default.delay_seconds) == ("auto", 5)
        assert (default.max_changes, default.per_seconds) == (5, 86_400)

    def test_an_accounts_rules_come_first_and_inherit_its_keys(self, tmp_path: Path) -> None:
        policies = settings(tmp_path, self.GENERAL + ACCOUNT + self.OWN).policies("main")
        own, general = policies.of("16315551000"), policies.of("16315552000")
        assert (own.mode, own.delay_seconds, own.max_changes) == ("auto", 5, 1)
        assert (general.mode, general.delay_seconds, general.max_changes) == ("manual", 5, 5)
        assert [rule.policy.name for rule in policies.rules] == ["vip", "vip"]

    def test_an_account_without_a_policy_has_the_general_one(self, tmp_path: Path) -> None:
        policies = settings(tmp_path, self.GENERAL + ACCOUNT).policies("main")
        assert policies.default.delay_seconds == 60
        assert policies.of("16315552000").name == "vip"

    def test_an_account_that_is_not_configured_has_none(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError):
            settings(tmp_path).policies("main")

    def test_a_key_set_to_its_zero_is_an_override(self, tmp_path: Path) -> None:
        toml = self.GENERAL + ACCOUNT + "policy.delay_seconds = 0"
        assert settings(tmp_path, toml).policies("main").default.delay_seconds == 0

    @pytest.mark.parametrize(
        ("rules", "key"),
        [
            ("{name = 'vip'}", "[0].wa_ids"),
            ("{name = 'default', wa_ids = ['1']}", "[0].name"),
            ("{name = 'trust_first_use', wa_ids = ['1']}", "[0].name"),
            ("{name = 'VIP', wa_ids = ['1']}", "[0].name"),
            ("{wa_ids = ['1']}", "[0].name"),
            ("{name='a', wa_ids=['1']}, {name='a', wa_ids=['2']}", "[0].name"),
            ("{name = 'vip', wa_ids = ['+1']}", "[0].wa_ids[0]"),
            ("{name = 'vip', wa_id_prefixes = ['1', '']}", "[0].wa_id_prefixes[1]"),
            ("{name = 'vip', wa_ids = '1'}", "[0].wa_ids"),
            ("{name = 'vip', wa_ids = ['1'], rules = []}", "[0].rules"),
        ],
    )
    def test_a_bad_rule_is_named_by_its_place_in_the_list(
        self, tmp_path: Path, rules: str, key: str
    ) -> None:
        assert refusal(tmp_path, f"policy.rules = [{rules}]").startswith(f"policy.rules{key}: ")
        said = refusal(tmp_path, ACCOUNT + f"policy.rules = [{rules}]")
        assert said.startswith(f"accounts.main.policy.rules{key}: ")


def test_the_process_environment_is_read_unless_another_is_given(tmp_path: Path) -> None:
    (tmp_path / "ackgate.toml").touch()
    code = "from service.settings import load; print(load().server.port)"
    environ = {"ACKGATE_SERVER__PORT": "1234", "ACKGATE_CONFIG": str(tmp_path / "ackgate.toml")}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "1234\n"


def uncommented(file: Path) -> str:
    """The file with its settings in force that are commented out: `#key = …` and `#[table]`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in lines)


def keys_in_comments(file: Path) -> set[str]:
    return set(_paths(tomllib.loads(uncommented(file)), ""))


def _paths(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        named = path in {"accounts", "apps", "api.keys", "relays", "console.proxy.roles"}
        below = [(f"{path}.{'NAME' if named else k}".lstrip("."), v) for k, v in value.items()]
        if path == "relays.NAME.headers":
            # Whatever the name, and whether or not from a file.
            below = [(f"{path}.NAME{'_file' * k.endswith('_file')}", v) for k, v in value.items()]
        return [found for inner, v in below for found in _paths(v, inner)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [found for element in value for found in _paths(element, f"{path}[]")]
    return [path]


class TestGate:
    def test_an_account_says_what_blocks_and_what_only_warns(self, tmp_path: Path) -> None:
        plain = settings(tmp_path, ACCOUNT).onprem_accounts["main"].gate
        assert plain.rules == Rules()
        toml = ACCOUNT + "gate = {warn=['contact_invalid'], block=['catching_up']}"
        assert settings(tmp_path, toml).onprem_accounts["main"].gate.rules == Rules(
            frozenset({"contact_invalid"}), frozenset({"catching_up"})
        )

    def test_an_account_may_refuse_whom_nobody_ever_heard_of(self, tmp_path: Path) -> None:
        got = (
            settings(tmp_path, ACCOUNT + "gate.unknown_sendable = false")
            .onprem_accounts["main"]
            .gate
        )
        assert got.rules == Rules(block=frozenset({"contact_unknown"}))

    @pytest.mark.parametrize(
        ("gate", "key", "why"),
        [
            ("gate.warn = ['colour']", "accounts.main.gate.warn[0]", "a code of the gate"),
            ("gate.block = ['contact_unknown']", "accounts.main.gate.block[0]", "unknown_sendable"),
            (
                "gate = {warn=['blocked'], block=['blocked']}",
                "accounts.main.gate.warn",
                "blocked is in gate.block too",
            ),
        ],
    )
    def test_a_code_that_is_none_or_on_both_sides_stops_the_start(
        self, tmp_path: Path, gate: str, key: str, why: str
    ) -> None:
        said = refusal(tmp_path, ACCOUNT + gate)
        assert said.startswith(key)
        assert why in said


class TestCloud:
    def test_an_account_has_the_defaults_of_the_contract(self, tmp_path: Path) -> None:
        got = settings(tmp_path, APP + CLOUD)
        account, app = got.cloud_accounts["shop"], got.apps["meta"]
        assert (account.kind, account.app) == ("cloud", "meta")
        assert account.phone_number_id == "106540352242922"
        assert account.base_url == "https://graph.facebook.com/v25.0"
        assert account.trust_first_use is True
        assert (account.verify_tls, account.timeout_seconds) == (True, 60)
        assert (account.ca_file, account.phone_number) == (None, None)
        assert account.access_token.get_secret_value() == SECRET
        assert app.app_secret.get_secret_value() == APP_SECRET
        assert app.app_secret_previous is None

    def test_accounts_of_both_kinds_stand_side_by_side(self, tmp_path: Path) -> None:
        got = settings(tmp_path, APP + CLOUD + ACCOUNT)
        assert list(got.accounts) == ["shop", "main"]
        assert (list(got.cloud_accounts), list(got.onprem_accounts)) == (["shop"], ["main"])
        assert got.accounts_of("meta") == {"106540352242922": "shop"}
        assert got.accounts_of("nobody") == {}

    def test_an_app_may_be_without_accounts(self, tmp_path: Path) -> None:
        assert settings(tmp_path, APP).accounts_of("meta") == {}

    def test_the_webhook_url_of_an_account_is_that_of_its_app(self, tmp_path: Path) -> None:
        got = settings(tmp_path, APP + CLOUD)
        assert got.webhook_url("shop", "https://hooks.example.com") == (
            "https://hooks.example.com/webhooks/meta"
        )

    def test_it_needs_no_webhook_token_to_be_open_to_all(self, tmp_path: Path) -> None:
        got = settings(tmp_path, "[server]\nhost = '0.0.0.0'\n" + APP + CLOUD + WITH_KEY)
        assert not got.open_to_loopback_only

    def test_its_policy_is_local_and_trusts_the_first_hash(self, tmp_path: Path) -> None:
        policies = settings(tmp_path, APP + CLOUD + "policy.delay_seconds = 5").policies("shop")
        assert (policies.local, policies.default.delay_seconds) == (True, 5)
        assert policies.first_use is not None
        assert (policies.first_use.name, policies.first_use.mode) == ("trust_first_use", "auto")
        assert policies.first_use.delay_seconds == 0

    def test_without_trust_on_first_use_policy_decides(self, tmp_path: Path) -> None:
        policies = settings(tmp_path, APP + CLOUD + "trust_first_use = false").policies("shop")
        assert (policies.local, policies.first_use) == (True, None)

    def test_a_client_is_asked_by_the_policy_of_its_account(self, tmp_path: Path) -> None:
        policies = settings(tmp_path, ACCOUNT).policies("main")
        assert (policies.local, policies.first_use) == (False, None)

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("phone_number_id = 106540352242922", "phone_number_id"),
            ("phone_number_id = '+16315550100'", "phone_number_id"),
            ("phone_number_id = ''", "phone_number_id"),
            ("waba_id = 'one'", "waba_id"),
            ("app = 'Meta'", "app"),
            ("app = 'other'", "app"),
            ("access_token = ''", "access_token"),
            ("access_token = 'two words'", "access_token"),
            ("access_token = 'é'", "access_token"),
            ("base_url = 'http://graph.facebook.com'", "base_url"),
            ("verify_tls = false", "verify_tls"),
            ("token_header = 'D360 API KEY'", "token_header"),
            ("token_header = ''", "token_header"),
            ("webhook_url = 'bot.example.com'", "webhook_url"),
            ("trust_first_use = 'yes'", "trust_first_use"),
            ("timeout_seconds = 0", "timeout_seconds"),
            ("phone_number = '1'", "phone_number"),
            ("ca_file = 'nowhere.pem'", "ca_file"),
            ("policy.mode = 'never'", "policy.mode"),
            ("policy.rules = [{name='a', wa_ids=['+1']}]", "policy.rules[0].wa_ids[0]"),
            ("gate.warn = ['colour']", "gate.warn[0]"),
            ("kind = 'telepathy'", "kind"),
            ("kind = 5", "kind"),
            ("kind = ['cloud']", "kind"),
            ("colour = 1", "colour"),
            ("cloud = 1", "cloud"),
            ("policy.colour = 1", "policy.colour"),
        ],
    )
    def test_a_bad_value_or_key_is_named_without_the_kind(
        self, tmp_path: Path, line: str, key: str
    ) -> None:
        name = line.partition(" ")[0]
        lines = [x for x in CLOUD.splitlines() if x.partition(" ")[0] != name]
        said = refusal(tmp_path, "\n".join([APP, *lines, line]))
        assert said.startswith(f"accounts.shop.{key}: ")
        assert said.endswith("ackgate.toml)")

    def test_the_id_of_another_thing_is_not_called_a_phone_numbers(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, APP + CLOUD + "waba_id = 'one'\n")
        assert said.startswith("accounts.shop.waba_id: must be an id as Meta shows it, digits only")

    def test_verify_tls_may_be_false_on_this_machine(self, tmp_path: Path) -> None:
        line = "base_url = 'http://127.0.0.1:9'\nverify_tls = false\n"
        assert settings(tmp_path, APP + CLOUD + line).cloud_accounts["shop"].verify_tls is False

    @pytest.mark.parametrize("key", ["app", "phone_number_id", "access_token"])
    def test_an_account_needs_its_app_its_number_and_its_token(
        self, tmp_path: Path, key: str
    ) -> None:
        lines = [line for line in CLOUD.splitlines() if not line.startswith(key)]
        said = refusal(tmp_path, APP + "\n".join(lines))
        assert said.startswith(f"accounts.shop.{key}: missing")
        assert f"ACKGATE_ACCOUNTS__SHOP__{key.upper()}" in said

    @pytest.mark.parametrize("line", ["username = 'x'", "webhook_token = 'x'", "contacts = {}"])
    def test_a_key_of_the_other_kind_is_unknown_and_said_so(
        self, tmp_path: Path, line: str
    ) -> None:
        said = refusal(tmp_path, APP + CLOUD + line)
        assert said.startswith(f"accounts.shop.{line.partition(' ')[0]}: unknown key where kind is")
        said = refusal(tmp_path, ACCOUNT + "trust_first_use = true")
        assert said.startswith("accounts.main.trust_first_use: unknown key where kind is onprem")

    def test_a_misspelt_key_is_told_its_likely_spelling_among_those_of_its_kind(
        self, tmp_path: Path
    ) -> None:
        said = refusal(tmp_path, APP + CLOUD.replace("access_token", "acess_token"))
        assert said.startswith("accounts.shop.acess_token: unknown key; did you mean access_token?")
        assert "did you mean" not in refusal(tmp_path, APP + CLOUD + "usernam = 'x'")

    def test_one_account_has_a_number_within_an_app(self, tmp_path: Path) -> None:
        second = CLOUD.replace("shop", "outlet")
        said = refusal(tmp_path, APP + CLOUD + second)
        assert said.startswith("accounts.outlet.phone_number_id: the same as that of accounts.shop")
        elsewhere = APP.replace("meta", "other") + second.replace("meta", "other")
        got = settings(tmp_path, APP + CLOUD + elsewhere)
        assert got.accounts_of("other") == {"106540352242922": "outlet"}

    def test_an_app_has_no_name_of_an_account(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, APP.replace("meta", "main") + ACCOUNT)
        assert said.startswith("apps.main: an account has this name too")

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("app_secret = ' '", "app_secret"),
            ("app_secret_previous = ''", "app_secret_previous"),
            ("verify_token = ''", "verify_token"),
            ("app_id = 'x'", "app_id"),
            ("auth = 'none'", "auth"),
            ("signature_header = 'X Signature'", "signature_header"),
            ("webhook_token = 'short'", "webhook_token"),
            ("webhook_token = 'a-token-without-effect'", "webhook_token"),
        ],
    )
    def test_a_bad_value_of_an_app_names_its_key(self, tmp_path: Path, line: str, key: str) -> None:
        lines = [x for x in APP.splitlines() if not x.startswith(f"{key} ")]
        assert refusal(tmp_path, "\n".join([*lines, line])).startswith(f"apps.meta.{key}: ")

    def test_secrets_that_meta_issues_or_knows_may_be_of_any_length(self, tmp_path: Path) -> None:
        toml = "[apps.meta]\napp_secret = 's'\napp_secret_previous = 'p'\nverify_token = 'v'\n"
        app = settings(tmp_path, toml + CLOUD).apps["meta"]
        secrets = (app.app_secret, app.app_secret_previous, app.verify_token)
        assert [one and one.get_secret_value() for one in secrets] == ["s", "p", "v"]

    @pytest.mark.parametrize("key", ["app_secret", "verify_token"])
    def test_an_app_needs_its_secret_and_its_verify_token(self, tmp_path: Path, key: str) -> None:
        lines = [line for line in APP.splitlines() if not line.startswith(key)]
        said = refusal(tmp_path, "\n".join(lines))
        assert said.startswith(f"apps.meta.{key}: missing")
        assert f"ACKGATE_APPS__META__{key.upper()}" in said

    def test_an_app_with_a_token_needs_that_alone_and_has_it_in_its_webhook_url(
        self, tmp_path: Path
    ) -> None:
        said = refusal(tmp_path, f"[apps.meta]\nauth = 'token'\n{CLOUD}")
        assert said.startswith("apps.meta.webhook_token: missing; set it, or ACKGATE_APPS__META__")
        token = "webhook_token = 'token-of-sixteen-and-more'"
        got = settings(tmp_path, f"[apps.meta]\nauth = 'token'\n{token}\n{CLOUD}")
        assert got.webhook_url("shop", "https://hooks.example.com") == (
            "https://hooks.example.com/webhooks/meta/token-of-sixteen-and-more"
        )

    def test_where_a_provider_signs_there_is_no_verify_token_but_a_secret(
        self, tmp_path: Path
    ) -> None:
        of_its_own = "[apps.meta]\nsignature_header = 'X-Provider-Signature'\n"
        assert refusal(tmp_path, of_its_own).startswith("apps.meta.app_secret: missing")
        app = settings(tmp_path, f"{of_its_own}app_secret = 's'").apps["meta"]
        assert (app.secrets, app.verify_token) == ([b"s"], None)

    def test_all_of_it_can_come_from_the_environment(self, tmp_path: Path) -> None:
        environ = {
            "ACKGATE_APPS__META__APP_SECRET": APP_SECRET,
            "ACKGATE_APPS__META__APP_SECRET_PREVIOUS": "f" * 32,
            "ACKGATE_APPS__META__VERIFY_TOKEN": "12345678",
            "ACKGATE_ACCOUNTS__SHOP__KIND": "cloud",
            "ACKGATE_ACCOUNTS__SHOP__APP": "meta",
            "ACKGATE_ACCOUNTS__SHOP__PHONE_NUMBER_ID": "106540352242922",
            "ACKGATE_ACCOUNTS__SHOP__BASE_URL": "http://127.0.0.1:9",
            "ACKGATE_ACCOUNTS__SHOP__ACCESS_TOKEN": SECRET,
            "ACKGATE_ACCOUNTS__SHOP__TRUST_FIRST_USE": "false",
            "ACKGATE_ACCOUNTS__SHOP__POLICY__MODE": "auto",
        }
        got = settings(tmp_path, "", environ)
        account, app = got.cloud_accounts["shop"], got.apps["meta"]
        assert account.access_token.get_secret_value() == SECRET
        assert account.trust_first_use is False
        assert got.policies("shop").default.mode == "auto"
        assert app.app_secret_previous is not None
        assert app.verify_token.get_secret_value() == "12345678"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ACKGATE_APPS__META__APP_SECRET", ""),
            ("ACKGATE_APPS__META__VERIFY_TOKEN", " "),
            ("ACKGATE_ACCOUNTS__SHOP__KIND", "telepathy"),
            ("ACKGATE_ACCOUNTS__SHOP__USERNAME", "x"),
            ("ACKGATE_ACCOUNTS__SHOP__PHONE_NUMBER_ID", "x"),
            ("ACKGATE_ACCOUNTS__SHOP__TRUST_FIRST_USE", "perhaps"),
            ("ACKGATE_ACCOUNTS__SHOP__ACCESS_TOKEN_FILE", "/nowhere"),
        ],
    )
    def test_a_bad_value_of_the_environment_names_its_variable(
        self, tmp_path: Path, name: str, value: str
    ) -> None:
        said = refusal(tmp_path, APP + CLOUD, {name: value})
        assert said.startswith(name.removeprefix("ACKGATE_").lower().replace("__", "."))
        assert said.endswith(f"(in environment variable {name})")

    def test_each_secret_can_be_a_file_and_shows_nowhere(self, tmp_path: Path) -> None:
        secrets = {"app_secret": "1" * 32, "app_secret_previous": "2" * 32}
        secrets |= {"verify_token": "a-token-to-verify", "access_token": "EAAG-and-so-on"}
        for name, secret in secrets.items():
            (tmp_path / name).write_text(f"{secret}\n")
        files = {name: f'{name}_file = "{tmp_path / name}"' for name in secrets}
        lines = [x for x in CLOUD.splitlines() if not x.startswith("access_token")]
        toml = "\n".join([*lines, files.pop("access_token"), "[apps.meta]", *files.values()])
        got = settings(tmp_path, toml)
        app = got.apps["meta"]
        assert app.app_secret_previous is not None
        assert (
            app.app_secret.get_secret_value(),
            app.app_secret_previous.get_secret_value(),
            app.verify_token.get_secret_value(),
            got.cloud_accounts["shop"].access_token.get_secret_value(),
        ) == tuple(secrets.values())
        shown = f"{got!r} {got} {got.redacted()}"
        assert not [secret for secret in secrets.values() if secret in shown]
        assert got.redacted()["accounts"]["shop"]["access_token"] == "…"


def test_a_proxy_that_names_people_needs_an_address_of_its_own(tmp_path: Path) -> None:
    proxy = "[console.proxy]\naddresses = ['10.0.0.4']\n"
    said = refusal(tmp_path, f"{WITH_TOKEN}{WITH_KEY}{proxy}")
    assert "console.proxy.addresses" in said
    assert "set server.internal" in said
    settings(tmp_path, f"{WITH_TOKEN}{WITH_KEY}{proxy}[server.internal]\nport = 8081\n")


def test_no_two_people_differ_in_the_case_of_letters_alone(tmp_path: Path) -> None:
    roles = "[console.proxy.roles]\n'Ana@shop.example' = 'reader'\n'ana@shop.example' = 'admin'\n"
    said = refusal(tmp_path, f"{WITH_TOKEN}{WITH_KEY}{roles}")
    assert "console.proxy.roles" in said
    assert "differ in the case of letters alone; remove one" in said
