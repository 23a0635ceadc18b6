"""What the page on scaling says of leases, connections and time limits is what the code has."""

import re

from service.app.replica import LEAD_SECONDS, LOOK_SECONDS
from service.store.postgres import (
    COMMAND_SECONDS,
    GATE_READERS,
    HOT_SETTINGS,
    READERS,
    SETTINGS,
    WRITERS,
)
from service.store.postgres_peers import LEASE_MS
from service.store.postgres_upgrades import OLDEST_SERVER
from tests.docs.conftest import ROOT, bare, blocks, read, sections, table

PAGE = "docs/scaling.md"
WORDS = {1: "one", 3: "three", 5: "five", 8: "eight"}


def page() -> str:
    return " ".join(read(PAGE).split())


def test_the_lease_is_as_long_as_it_says_and_so_is_what_a_takeover_waits_for() -> None:
    told = page()
    assert f"The lead is a lease of {LEASE_MS // 1000} s in the database" in told
    assert LEAD_SECONDS == LOOK_SECONDS == 1, "once a second"
    idle = int(SETTINGS["idle_in_transaction_session_timeout"])
    assert f"A transaction that its holder left open ends after {idle // 1000} s" in told
    within = re.search(r"\*\*another replica leads within (\d+) s\*\*", told)
    assert within is not None
    # The lease may end just after one has looked, and a transaction begin just before it ends.
    assert int(within[1]) * 1000 >= max(LEASE_MS, idle) + LEAD_SECONDS * 1000


def test_the_connections_of_a_replica_are_those_of_its_pools_and_one_more() -> None:
    told = " ".join(sections(read(PAGE), 3)["Connections"].split())
    total = WRITERS + READERS + GATE_READERS + 1
    assert f"up to {WORDS[total]} connections" in told
    assert (
        f"{WORDS[WRITERS]} that write, {WORDS[READERS]} that read, {WORDS[GATE_READERS]} for"
        in told
    )
    for_four = re.search(r"four replicas at once need (\d+)", told)
    assert for_four is not None
    assert int(for_four[1]) >= 4 * total + 1


def test_time_limits_are_those_of_the_connections() -> None:
    told = page()
    assert f"what is not answered in {COMMAND_SECONDS:g} s has failed" in told
    assert f"waits {WORDS[int(SETTINGS['lock_timeout']) // 1000]} seconds" in told
    assert f"PostgreSQL {OLDEST_SERVER} or later" in told


def test_pgbouncer_ignores_all_settings_of_connections_and_the_user_has_them_instead() -> None:
    ini, sql = (
        block.text
        for language in ("ini", "sql")
        for block in blocks(language)
        if "statement_timeout" in block.text
    )
    ignored = re.search(r"^ignore_startup_parameters = (.+)$", ini, re.MULTILINE)
    assert ignored is not None
    ours = HOT_SETTINGS.keys() - {"application_name"}
    assert set(ignored[1].split(", ")) == ours
    altered = dict(re.findall(r"^ALTER ROLE ackgate SET (\w+) = '?(\w+?)s?'?;$", sql, re.MULTILINE))
    assert altered.keys() == ours - {"tcp_user_timeout"}, "that is of a connection to PgBouncer"
    for name, value in altered.items():
        assert HOT_SETTINGS[name] in {value, f"{value}000"}


def test_what_fails_is_tried_where_the_page_says() -> None:
    for *_, tried in table(read(PAGE), "failure", "what is seen", "how it ends"):
        for file in re.findall(r"tests/[\w/.]+", bare(tried)):
            assert (ROOT / file).exists(), file
