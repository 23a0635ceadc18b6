"""The check that the service uses libraries by their documented interfaces alone."""

import importlib.util
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load() -> Any:
    """Import the script as it stands."""
    spec = importlib.util.spec_from_file_location("privates", ROOT / ".ci/privates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


privates = load()


def found(text: str, **others: str) -> list[str]:
    """Return what is found in a made-up module of the service, beside others that it imports."""
    texts = {"made_up": text, **others}
    sources = [
        privates.Source(f"service.{name}", f"service/{name}.py", dedent(source))
        for name, source in texts.items()
    ]
    return [one.what for one in privates.Checker(sources).check() if "made_up" in one.path]


def in_class(base: str, *lines: str, imports: str = "import queue") -> str:
    """Return a class with a method of these lines, and nothing else."""
    body = "".join(f"\n        {line}" for line in lines)
    return f"{imports}\nclass Made({base}):\n    def method(self, other):{body}\n"


class TestAttributesOfAForeignBase:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("self._init(3)", "self._init is private"),
            ("return super()._init(3)", "super()._init is private"),
            ("self._unheard += 1", "self._unheard is private"),
            ("return getattr(self, '_init')", "self._init is private"),
            ("return lambda: self._init", "self._init is private"),
        ],
    )
    def test_what_the_class_does_not_define_is_found(self, line: str, what: str) -> None:
        assert found(in_class("queue.Queue", line)) == [what]

    @pytest.mark.parametrize(
        "body",
        [
            "def __init__(self):\n        self._own = 1",
            "def _own(self): pass",
            "_own: int",
            "_own = 1",
            "__slots__ = ('_own', 'other')",
        ],
    )
    def test_what_the_class_defines_is_not(self, body: str) -> None:
        text = f"import queue\nclass Made(queue.Queue):\n    {body}\n    def get(self): self._own\n"
        assert found(text) == []

    def test_what_is_defined_over_the_bases_is_found(self) -> None:
        text = "from queue import Queue\nclass Made(Queue):\n    def _init(self, size): pass\n"
        assert found(text) == ["Made._init is defined over that of Queue"]

    def test_what_the_base_only_uses_of_itself_counts_as_its_own(self) -> None:
        text = in_class("web.AppRunner", "self._kwargs = 1", imports="from aiohttp import web")
        assert found(text) == ["Made._kwargs is defined over that of AppRunner"]

    def test_a_base_behind_classes_of_the_service_counts(self) -> None:
        between = "import queue\nclass Between(queue.Queue):\n    _own = 1\n"
        again = "from service.between import Between\n"
        text = """
            from service.again import Between
            class Made(Between):
                def method(self): return self._own, self._init
        """
        assert found(text, between=between, again=again) == ["self._init is private"]

    def test_a_class_without_a_foreign_base_is_mypys_affair(self) -> None:
        assert found("class Made:\n    def method(self): return self._x\n") == []


class TestAttributesOfOthers:
    @pytest.mark.parametrize(
        "text",
        [
            "def f(x): return x._name",
            "def f(x): x._name = 1",
            "def f(x): return getattr(x, '_name')",
            "def f(x): return x.inner()._name",
            "class Made:\n    def f(self, x): return x._name",
            "class Made:\n    def f(self): return self.x._name",
            "class Made:\n    _name = 1\ndef f(x): return x._name",
        ],
    )
    def test_they_are_found(self, text: str) -> None:
        [what] = found(text)
        assert what.endswith("._name is private")

    @pytest.mark.parametrize(
        "text",
        [
            "def f(x): return x.name, x.__class__, x.__dict__",
            "def f(x): return x._replace(a=1), x._asdict(), type(x)._fields, type(x)._make([])",
            "class Made:\n    def __init__(self): self._a = 1\n    def f(self, x): return x._a",
            "from gettext import gettext as _\ndef f(): return _('text')",
        ],
    )
    def test_magic_documented_and_own_names_are_not(self, text: str) -> None:
        assert found(text) == []

    def test_an_own_name_is_none_of_an_imported_module(self) -> None:
        text = "import queue\nclass Made:\n    _x = 1\n    def f(self): return queue._x\n"
        assert "queue._x is private" in found(text)


class TestImports:
    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("from aiohttp.client_proto import ResponseHandler", "aiohttp.client_proto"),
            ("from aiohttp import client_proto", "aiohttp.client_proto"),
            ("import aiohttp.http_parser", "aiohttp.http_parser"),
            ("import aiohttp\nx = aiohttp.http_exceptions.BadHttpMessage", "aiohttp.http_exc"),
            ("from prometheus_client.utils import floatToGoString", "prometheus_client.utils"),
            ("import unheard_of", "unheard_of"),
            ("import ctypes", "ctypes"),
            ("from ctypes import CDLL", "ctypes"),
            ("from aiohttp.web import RequestHandler", "aiohttp.web.RequestHandler"),
            ("from aiohttp import web\nclass A(web.RequestHandler): pass", "aiohttp.web.Request"),
            ("import _sqlite3", "_sqlite3"),
            ("from importlib import _bootstrap", "importlib._bootstrap"),
            ("from json.scanner import make_scanner", "json.scanner"),
            ("from importlib import import_module\nimport_module('_sqlite3')", "_sqlite3"),
            ("def f():\n    from asyncio import sslproto", "asyncio.sslproto"),
        ],
    )
    def test_undocumented_modules_and_classes_are_found(self, text: str, what: str) -> None:
        findings = found(text)
        assert findings
        assert all(one.startswith(what) for one in findings), findings

    @pytest.mark.parametrize(
        "text",
        [
            "import aiohttp\nfrom aiohttp import web\nx = web.Response, aiohttp.ClientSession",
            "from aiohttp.typedefs import Handler",
            "import asyncio, sqlite3, os.path\nfrom collections.abc import Iterator",
            "from sqlalchemy.dialects.sqlite import insert\nimport sqlalchemy.exc",
            "from importlib import import_module\nimport_module('uvloop')",
            "from __future__ import annotations",
        ],
    )
    def test_documented_ones_are_not(self, text: str) -> None:
        assert found(text) == []

    def test_a_name_with_an_underscore_is_found_wherever_it_comes_from(self) -> None:
        assert found("from queue import _PySimpleQueue") == ["queue._PySimpleQueue is private"]
        assert found("from service.other import _name") == ["_name is private"]

    def test_a_name_that_its_module_does_not_export_is_found(self) -> None:
        assert found("from queue import heappush") == ["queue.heappush is not exported"]


class TestTheScript:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        (tmp_path / "service/inner").mkdir(parents=True)
        (tmp_path / "service/inner/__init__.py").write_text("import ctypes\n")
        monkeypatch.setattr(privates, "ROOT", tmp_path)
        monkeypatch.setattr(privates, "KNOWN", frozenset())
        monkeypatch.setattr(privates, "EXCEPTIONS", {})
        return privates

    def test_it_names_file_and_line(self, tree: Any, capsys: pytest.CaptureFixture[str]) -> None:
        assert tree.main() == 1
        assert capsys.readouterr().out.strip() == (
            "service/inner/__init__.py:1: ctypes is not documented"
        )

    def test_an_exception_is_let_be_as_long_as_it_is_used(
        self, tree: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        used = {("service/inner/__init__.py", "ctypes"): "a reason"}
        monkeypatch.setattr(tree, "EXCEPTIONS", used)
        assert tree.main() == 0
        monkeypatch.setattr(tree, "EXCEPTIONS", {**used, ("service/x.py", "_y"): "another"})
        assert tree.main() == 1
        assert "service/x.py: no use of _y to except" in capsys.readouterr().out

    def test_there_are_at_most_three_exceptions(
        self, tree: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        four = {("service/inner/__init__.py", f"_{n}"): "a reason" for n in range(4)}
        monkeypatch.setattr(tree, "EXCEPTIONS", four)
        assert tree.main() == 1
        assert "4 exceptions: at most 3" in capsys.readouterr().out

    def test_what_is_known_of_a_file_is_not_reported(
        self, tree: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tree, "KNOWN", frozenset({"service/inner/__init__.py"}))
        assert tree.main() == 0
