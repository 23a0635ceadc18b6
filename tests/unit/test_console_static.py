"""The files that pages load are what was published, and nothing is loaded from elsewhere."""

import json
import re
from hashlib import sha256

from service.console.pages import FOLDER as TEMPLATES
from service.console.static import FOLDER

VENDORED = json.loads((FOLDER / "vendored.json").read_text(encoding="utf-8"))


def test_each_vendored_file_is_as_it_was_published() -> None:
    digests = {
        one["file"]: sha256((FOLDER / one["file"]).read_bytes()).hexdigest() for one in VENDORED
    }
    assert digests == {one["file"]: one["sha256"] for one in VENDORED}


def test_each_is_named_with_its_version_and_has_its_licence_beside_it() -> None:
    for one in VENDORED:
        assert one["version"] in one["source"]
        assert one["licence"]
        assert (FOLDER / one["licence_file"]).stat().st_size > 300


def test_every_file_is_vendored_or_our_own() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.is_file()}
    vendored = {one["file"] for one in VENDORED}
    assert {name for name in names if ".min." in name} == vendored


def test_no_template_has_script_or_style_of_its_own() -> None:
    inline = re.compile(r"<style|\sstyle=|\son[a-z]+=|hx-on|js:|javascript:|<script(?![^>]* src=)")
    for template in TEMPLATES.rglob("*.html"):
        assert not inline.search(template.read_text(encoding="utf-8")), template.name


def test_where_nobody_can_be_ticked_nothing_is_offered_to_be_decided() -> None:
    """Of an empty list, and of one that empties while it is shown."""
    style = (FOLDER / "console.css").read_text(encoding="utf-8")
    assert "#selected:not(:has(td.tick)) > .panel { display: none; }" in style
    pages = FOLDER.parent / "templates"
    assert '<td class="tick">' in (pages / "_waiting.html").read_text(encoding="utf-8")
    assert '<form id="selected"' in (pages / "waiting.html").read_text(encoding="utf-8")
