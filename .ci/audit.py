"""Ask PyPI for known vulnerabilities of what the locks hold, with pip-audit.

Exit 0: every package was asked about, and nothing is known. 1: something is known. 2: nobody can
say, for PyPI's data could not be reached. pip-audit itself ends with 0 there, and says that it
found nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("runtime", "alerts", "postgres", "simulator")
"""What a release installs; the tools of the checkout are not asked about."""
UNKNOWN = 2


def main() -> int:
    """Say what was found, and return the exit status."""
    locks = [f"--requirement={ROOT / 'requirements' / lock}.txt" for lock in LOCKS]
    ran = subprocess.run(
        [
            ROOT / ".venv-tools/bin/pip-audit",
            *locks,
            "--no-deps",
            "--disable-pip",
            "--progress-spinner=off",
            "--format=json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[-1]
        print(f"NOT AUDITED: pip-audit got no answer: {reason}", file=sys.stderr)
        return UNKNOWN
    known = [(one, found) for one in packages for found in one.get("vulns", ())]
    for one, found in known:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {found['id']}, fixed in {fixed}")
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    if skipped:
        print(
            f"NOT AUDITED: PyPI has told nothing about {len(skipped)} of {len(packages)} packages, "
            f"such as {skipped[0]}: its JSON API can't be reached from here, or lacks them",
            file=sys.stderr,
        )
    if known:
        return 1
    if skipped:
        return UNKNOWN
    print(f"no known vulnerability in {len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
