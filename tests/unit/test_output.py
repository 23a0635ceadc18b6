"""What commands print for people: tables within the width, nothing cut, times and sizes."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.cli import units
from service.cli.documents import IDENTITIES, print_documents, print_identity
from service.cli.output import print_pairs, print_table

HASH = "Rc/eg9Rl0JA="
URL = "https://hooks.example.com/webhooks/main/a-path-that-is-as-long-as-people-make-such-paths-be"
WORDS = "the policy decided that this change waits for a person because too many came before it"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour ahead of UTC in winter, whatever the machine is set to."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def back(**ago: float) -> str:
    at = datetime.now(UTC) - timedelta(**ago)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def identity(**more: object) -> dict[str, object]:
    return {
        "account": "main",
        "wa_id": "16315553601",
        "state": "acknowledged",
        "changed_at": back(minutes=3, seconds=5),
        "decided_by": {"kind": "policy", "name": "default"},
        "hash": HASH,
        **more,
    }


class TestUnits:
    @pytest.mark.parametrize(
        ("ago", "said"),
        [
            ({"seconds": 0.2}, "now"),
            ({"seconds": 45}, "45 s ago"),
            ({"minutes": 3, "seconds": 5}, "3 min ago"),
            ({"minutes": 90}, "90 min ago"),
            ({"hours": 5, "minutes": 2}, "5 h ago"),
            ({"days": 12, "minutes": 1}, "12 days ago"),
            ({"minutes": -10, "seconds": -5}, "in 10 min"),
        ],
    )
    def test_a_time_is_told_as_how_long_ago_it_was(self, ago: dict[str, float], said: str) -> None:
        assert units.ago(back(**ago)) == said

    def test_a_time_of_long_ago_is_a_date(self) -> None:
        assert units.ago("2020-01-31T23:30:00.000Z") == "2020-02-01"

    def test_an_exact_time_is_local_and_in_full_has_its_offset(self) -> None:
        assert units.local("2020-01-31T23:30:00.123Z") == "2020-02-01 00:30:00"
        assert units.in_full("2020-01-31T23:30:00.123Z") == "2020-02-01 00:30:00+01:00 (2020-02-01)"

    def test_a_time_that_no_calendar_has_is_shown_as_it_came(self) -> None:
        for odd in ("2020-13-31T23:30:00Z", "0001-01-01T00:00:00Z"):
            assert units.in_full(odd)[:4] == odd[:4]
            assert units.ago(odd)[:4] == odd[:4]

    @pytest.mark.parametrize(
        ("count", "said"),
        [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (4_194_304, "4 MB"),
            (61_448_192, "61 MB"),
            (5e9, "5 GB"),
        ],
    )
    def test_a_size_has_the_unit_that_suits_it(self, count: float, said: str) -> None:
        assert units.size(count) == said

    def test_a_duration_has_the_unit_that_suits_it(self) -> None:
        assert [units.duration(n) for n in (0, 119, 120, 7199, 86_400, 172_800)] == [
            "0 s",
            "119 s",
            "2 min",
            "120 min",
            "24 h",
            "2 days",
        ]


class TestTables:
    def test_a_list_of_identities_fits_eighty_columns_with_a_line_for_each(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_documents(IDENTITIES, [identity(), identity(decided_by=None, state="pending")])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        rows = [line for line in lines if HASH in line]
        assert len(rows) == 2
        assert all("16315553601" in row and "3 min ago" in row for row in rows)

    def test_a_column_without_any_value_is_left_out(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_documents(IDENTITIES, [identity(decided_by=None)])
        assert "decided by" not in capsys.readouterr().out

    @pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
    def test_whatever_the_width_nothing_to_be_copied_is_cut_or_broken(
        self, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        values = ("+49 1512 3456789", "US.13491208655302741918", HASH, URL)
        heads = ("input", "user", "hash", "url")
        print_table((*heads, "why"), [(*values, WORDS)] * 2, prose={"why"})
        print_pairs(dict(zip((*heads, "why"), (*values, WORDS), strict=True)))
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert all(sum(value in line for line in lines) == 3 for value in values)
        assert all(len(line) <= width or URL in line for line in lines)
        assert WORDS in " ".join(out.replace("─", " ").split()) or width == 200
        assert "…" not in out

    def test_sentences_are_wrapped_before_a_table_is_given_up(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_table(("hash", "why"), [(HASH, WORDS)], prose={"why"})
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["hash", "why"]
        assert max(map(len, lines)) <= 80
        assert sum(HASH in line for line in lines) == 1

    def test_a_table_is_as_wide_as_the_terminal(self, tmp_path: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
        (tmp_path / "ackgate.toml").write_text("")
        words = (sys.executable, "-m", "service", "check-config", "--config", "ackgate.toml")
        env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        subprocess.run(
            words, stdout=theirs, stderr=subprocess.DEVNULL, cwd=tmp_path, env=env, check=True
        )
        os.close(theirs)
        out = os.read(ours, 65_536).decode()
        os.close(ours)
        assert "server.max_body_bytes" in out
        assert max(map(len, out.splitlines())) <= 50


class TestPairs:
    def test_times_sizes_and_durations_have_a_form_for_people(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        print_pairs(
            {
                "since": "2020-01-31T23:30:00.123Z",
                "bytes": 61_448_192,
                "server": {"drain_seconds": 2, "per_seconds": 86_400, "max_body_bytes": 4_194_304},
                "is_seconds": True,
            }
        )
        out = capsys.readouterr().out
        assert "2020-02-01 00:30:00+01:00 (2020-02-01)" in out
        assert "61448192 (61 MB)" in out
        assert "86400 (24 h)" in out
        assert "4194304 (4 MB)" in out
        assert "drain_seconds" in out
        assert "2 (2 s)" not in out
        assert "true" in out

    def test_a_history_and_the_audit_trail_have_exact_local_times(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        entry = {"at": "2020-01-31T23:30:00.123Z", "event": "decided", "hash": HASH}
        print_identity(identity(history=[{"changed_at": entry["at"], "hash": "x"}], audit=[entry]))
        assert capsys.readouterr().out.count("2020-02-01 00:30:00") == 2
