"""Write the SBOM of a release: what the runtime's lock holds, and the vendored front-end files.

It is CycloneDX 1.6 as JSON. cyclonedx-py reads the environment that the packages are installed in,
for licences and for what depends on what. Only what the lock names stays, in the locked versions:
pip and the tools of the checkout are no part of the release.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)\s*(;)?", re.MULTILINE)

Json = dict[str, Any]


def canonical(name: str) -> str:
    """Return the one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path) -> dict[str, tuple[str, bool]]:
    """Return what a lock names, each with its version, and whether it is for some systems alone."""
    found = LOCKED.findall(lock.read_text(encoding="utf-8"))
    return {canonical(name): (version, bool(marker)) for name, version, marker in found}


def environment(python: Path) -> Json:
    """Return what is installed in an environment, as cyclonedx-py says it.

    It is not validated: that takes ten times as long as all the rest.
    """
    ran = subprocess.run(
        [
            ROOT / ".venv-tools/bin/cyclonedx-py",
            "environment",
            python,
            "--pyproject",
            ROOT / "pyproject.toml",
            "--short-PURLs",
            "--no-validate",
            "--spec-version=1.6",
            "--of=JSON",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        sys.exit(f"cyclonedx-py: exit {ran.returncode}\n{ran.stderr}")
    made: Json = json.loads(ran.stdout)
    return made


def vendored(root: Path) -> list[Json]:
    """Return the files that are vendored from npm, whose digests have to be the noted ones."""
    components: list[Json] = []
    for listing in sorted(root.glob("service/**/vendored.json")):
        for one in json.loads(listing.read_text(encoding="utf-8")):
            content = (listing.parent / one["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != one["sha256"]:
                sys.exit(f"{one['file']}: is not the file that {listing.name} lists")
            purl = f"pkg:npm/{quote(one['name'], safe='/')}@{one['version']}"
            components.append(
                {
                    "bom-ref": f"{purl}#{one['file']}",
                    "type": "library",
                    "name": one["name"],
                    "version": one["version"],
                    "description": f"vendored as {one['file']}",
                    "licenses": [{"license": {"id": one["licence"]}}],
                    "purl": purl,
                    "hashes": [{"alg": "SHA-256", "content": one["sha256"]}],
                    "externalReferences": [{"type": "distribution", "url": one["source"]}],
                }
            )
    return components


def version_of(root: Path) -> str:
    """Return the version of a source."""
    text = (root / "service/__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def sbom(python: Path, root: Path = ROOT) -> Json:
    """Return the SBOM of a source whose runtime's lock is installed beside `python`."""
    made = environment(python)
    wanted = locked(root / "requirements/runtime.txt")
    installed = {canonical(one["name"]): one for one in made["components"]}
    for name, (version, is_optional) in wanted.items():
        found = installed.get(name, {}).get("version")
        if found != version and not (found is None and is_optional):
            sys.exit(f"{name}: {version} is locked, and {found} is installed")
    packages = [one for name, one in installed.items() if name in wanted]
    files = vendored(root)
    references = {one["bom-ref"] for one in packages}
    depends = {one["ref"]: set(one.get("dependsOn", ())) for one in made["dependencies"]}
    own = made["metadata"]["component"]
    own["version"] = version_of(root)
    own["purl"] = f"pkg:pypi/{own['name']}@{own['version']}"
    graph = {
        ref: depends.get(ref, set()) & references for ref in (own["bom-ref"], *sorted(references))
    }
    graph[own["bom-ref"]] |= {one["bom-ref"] for one in files}
    made["components"] = [*packages, *files]
    made["dependencies"] = [{"ref": r, "dependsOn": sorted(on)} for r, on in graph.items()]
    return made


def write(python: Path, folder: Path, root: Path = ROOT) -> Path:
    """Write the SBOM into a folder, and return its file."""
    made = sbom(python, root)
    file = folder / f"ackgate-{version_of(root)}.cdx.json"
    file.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return file


def main() -> None:
    """Write the SBOM of this checkout into `dist`, from the environment of this Python."""
    folder = ROOT / "dist"
    folder.mkdir(exist_ok=True)
    file = write(Path(sys.executable), folder)
    listed = json.loads(file.read_text(encoding="utf-8"))["components"]
    print(f"{file.relative_to(ROOT)} lists {len(listed)} components")


if __name__ == "__main__":
    main()
