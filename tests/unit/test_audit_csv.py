"""The CSV of the audit trail is text to every spreadsheet."""

import pytest

from service.cli.audit import print_csv


def test_no_cell_is_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(
        [
            {
                "id": 1,
                "note": '=HYPERLINK("http://x")',
                "reason": "+1",
                "by": {"kind": "key", "name": "crm", "on_behalf_of": "@SUM(A1)"},
                "evidence": {"method": "-2", "reference": "\t=1"},
            }
        ]
    )
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("id,at,account,")
    assert 'key:crm,\'@SUM(A1),\'+1,"\'=HYPERLINK(""http://x"")",\'-2,\'\t=1,' in row
