"""The shape of the code: floors, who may import what, sizes, names, one call site per decision.

The tree is read as text and syntax; docs/architecture.rst says why it has this shape.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import statistics
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import attrs
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial import unittest
from zope.interface import implementedBy

from slapenir import events
from slapenir.observe.access import AccessLog
from slapenir.observe.audit import AuditLog
from slapenir.observe.diagnostics import Diagnostics
from slapenir.observe.families import FAMILIES
from slapenir.observe.metrics import Metrics
from slapenir.observe.publisher import Publisher
from slapenir.observe.record import AUDITED, exchange_finished
from tests.observe.samples import HONEYTOKEN, ONE_OF_EACH

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "slapenir"

FLOORS = {
    "events": 0,
    "errors": 0,
    "names": 0,
    "secret": 0,
    "evidence": 0,
    "wire": 1,
    "policy": 1,
    "scan": 1,
    "credentials": 1,
    "pki": 1,
    "exchange": 2,
    "config": 2,
    "edge": 3,
    "observe": 3,
    "issuance": 3,
    "service": 4,
    "loading": 4,
    "doors": 4,
    "gatehouse": 4,
    "managed": 4,
    "naming": 4,
    "handed": 4,
    "sandboxes": 4,
    "tap": 4,
    "cli": 4,
    "admin": 4,
    "sidecar": 4,
    "sandbox": 4,
}
CONFINED = {
    "twisted": {
        "edge",
        "observe",
        "issuance",
        "admin",
        "service",
        "doors",
        "gatehouse",
        "managed",
        "naming",
        "sandboxes",
        "tap",
        "cli",
        "sidecar",
    },
    "OpenSSL": {"edge", "issuance", "gatehouse", "sidecar", "sandbox"},
    "cryptography": {"pki", "edge", "issuance", "doors", "managed", "sandbox"},
    "acme": {"issuance"},
    "josepy": {"issuance"},
    "requests": {"issuance"},
    "jwcrypto": {"issuance"},
    "click": {"cli"},
    "rich": {"cli"},
}
MAX_MODULE, MAX_MEDIAN_MODULE, MAX_FUNCTION, MAX_USUAL_FUNCTION = 400, 170, 80, 40
BAD_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|handlers?)(_|$)")
LOOKED_UP = {"makeService", "logPrefix", "optParameters"}  # by Twisted, without a base class
CAMEL = re.compile(r"[a-z]+[A-Z]\w*")


@cache
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of every module of the package by its path below it."""
    return {
        path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8"), str(path))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def unit(path: Path) -> str:
    """Return the room a module belongs to: the first part of its path."""
    return path.parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything imported, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function and method of the package."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def wrong_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports and must not, as one line each."""
    here = unit(path)
    for line, name in imports(tree):
        first, _, rest = name.partition(".")
        if first in CONFINED and here not in CONFINED[first]:
            yield f"{path}:{line}: {name} is only for {sorted(CONFINED[first])}"
        there = rest.partition(".")[0]
        if first != "slapenir" or there in ("", "__version__", here):
            continue
        same = FLOORS[here] == FLOORS[there]
        if FLOORS[there] > FLOORS[here] or (same and FLOORS[here] not in (0, 4)):
            yield f"{path}:{line}: {here} (floor {FLOORS[here]}) imports {there}"


class FloorTests(unittest.SynchronousTestCase):
    """An import may only point down; siblings do not import each other."""

    def test_every_room_has_a_floor(self) -> None:
        rooms = {unit(path) for path in trees()} - {"__init__"}
        self.assertEqual(rooms - set(FLOORS), set())

    def test_imports_point_down(self) -> None:
        found = [
            line
            for path, tree in trees().items()
            if unit(path) != "__init__"
            for line in wrong_imports(path, tree)
        ]
        self.assertEqual(found, [])

    def test_the_check_sees_wrong_imports(self) -> None:
        """Each kind of wrong import is seen, also inside a function; right ones are not."""
        for room, code, wrong in (
            ("wire", "from slapenir.scan import forms", True),
            ("wire", "import slapenir.exchange.session", True),
            ("wire", "def f():\n    import twisted.internet", True),
            ("edge", "from slapenir.observe.audit import AuditLog", True),
            ("scan", "import cryptography", True),
            ("observe", "from OpenSSL import SSL", True),
            ("wire", "from slapenir.names import Scheme", False),
            ("edge", "from OpenSSL import SSL\nfrom slapenir.exchange import inputs", False),
            ("service", "from slapenir.admin import admin_factory", False),
            ("admin", "from slapenir import __version__", False),
        ):
            found = list(wrong_imports(Path(room) / "x.py", ast.parse(code)))
            self.assertEqual(bool(found), wrong, (room, code))


class SizeTests(unittest.SynchronousTestCase):
    """A module or function that wants more is missing a name."""

    def test_modules(self) -> None:
        lengths = {
            str(path): len((PACKAGE / path).read_text("utf-8").splitlines()) for path in trees()
        }
        self.assertEqual({p: n for p, n in lengths.items() if n > MAX_MODULE}, {})
        self.assertLessEqual(statistics.median(lengths.values()), MAX_MEDIAN_MODULE)

    def test_functions(self) -> None:
        lengths = {
            f"{path}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
            for path, node in functions()
        }
        self.assertEqual({p: n for p, n in lengths.items() if n > MAX_FUNCTION}, {})
        self.assertLessEqual(statistics.quantiles(lengths.values(), n=20)[-1], MAX_USUAL_FUNCTION)


class NameTests(unittest.SynchronousTestCase):
    """Names say what a thing is."""

    def test_no_file_is_called_after_nothing(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if listed.returncode:
            raise unittest.SkipTest("git, or the repository, is missing")
        bad = [p for p in listed.stdout.splitlines() if BAD_NAMES.search(Path(p).stem)]
        self.assertEqual(bad, [])
        for stem in ("util", "str_utils", "helpers", "pool_manager", "handler"):
            self.assertIsNotNone(BAD_NAMES.search(stem))
        self.assertIsNone(BAD_NAMES.search("utilisation"))

    def test_camel_case_is_the_reactors(self) -> None:
        """A method in camelCase is one that a Twisted class or interface names."""
        bad = [
            f"{cls.__module__}.{cls.__name__}.{name}"
            for path in trees()
            if unit(path) in CONFINED["twisted"]
            for cls in classes_of(path)
            for name in tuple(vars(cls))
            if CAMEL.fullmatch(name) and not named_by_twisted(cls, name)
        ]
        self.assertEqual(bad, [])
        functions_in_camel_case = {
            node.name
            for path, node in functions()
            if CAMEL.fullmatch(node.name) and unit(path) not in CONFINED["twisted"]
        }
        self.assertEqual(functions_in_camel_case, set())


def classes_of(path: Path) -> list[type]:
    """Return the classes that a module defines."""
    name = ".".join(("slapenir", *path.with_suffix("").parts)).removesuffix(".__init__")
    if name.endswith(".__main__"):
        return []
    module = importlib.import_module(name)
    found = inspect.getmembers(module, inspect.isclass)
    return [cls for _, cls in found if cls.__module__ == name]


def named_by_twisted(cls: type, name: str) -> bool:
    """Whether a base class outside this package or an interface has the method."""
    foreign = [base for base in cls.__mro__[1:] if not base.__module__.startswith("slapenir")]
    if name in LOOKED_UP:
        return True
    return any(hasattr(base, name) for base in foreign) or any(
        name in interface for interface in implementedBy(cls).flattened()
    )


class DecisionTests(unittest.SynchronousTestCase):
    """Each decision is made at one place, and carried from there."""

    PLACES = {
        "decide_connect": "exchange/opening.py",
        "decide_request": "exchange/admission.py",
        "decide_address": "edge/resolver.py",
    }

    def test_one_call_site_each(self) -> None:
        """Outside policy, which defines them, and the command line, which only explains."""
        calls: dict[str, list[str]] = {name: [] for name in self.PLACES}
        for path, tree in trees().items():
            if unit(path) in ("policy", "cli"):
                continue
            for node in ast.walk(tree):
                name = getattr(node, "id", getattr(node, "attr", ""))
                if name in calls and isinstance(node, ast.Name | ast.Attribute):
                    calls[name].append(str(path))
        self.assertEqual(calls, {name: [place] for name, place in self.PLACES.items()})


class HabitTests(unittest.SynchronousTestCase):
    """Things that are not done anywhere in the package."""

    def test_no_exception_is_passed_over(self) -> None:
        """No handler is bare, and none does nothing at all."""
        bad = [
            f"{path}:{node.lineno}"
            for path, tree in trees().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or all(isinstance(n, ast.Pass) for n in node.body))
        ]
        self.assertEqual(bad, [])

    def test_the_reactor_is_an_argument(self) -> None:
        """Only the two tap.py import the reactor, inside the function that twistd calls."""
        found = [
            (str(path), line)
            for path, tree in trees().items()
            for line, name in imports(tree)
            if name == "twisted.internet.reactor"
        ]
        self.assertEqual([path for path, _ in found], ["sidecar/tap.py", "tap.py"])
        self.assertNotIn(
            "twisted.internet.reactor", [name for _, name in top_level_imports(Path("tap.py"))]
        )

    def test_no_environment_variable_turns_anything_off_t229(self) -> None:
        """T229: the environment is read where configuration is read, and nowhere else.

        Two files of the sandbox room run inside sandboxes only, not in the gateway.
        """
        readers = {
            unit(path)
            for path, tree in trees().items()
            if str(path) not in ("sandbox/doctor_inside.py", "sandbox/doctor_clients.py")
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute | ast.Name)
            and getattr(node, "attr", getattr(node, "id", ""))
            in ("environ", "environb", "getenv", "getenvb")
            and reads_the_environment(node)
        }
        self.assertLessEqual(readers, {"config", "cli", "service"})
        for code, reads in (("os.environ['X']", True), ("getenv('X')", True), ("environ", False)):
            node = next(n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.expr))
            names = [n for n in ast.walk(node) if isinstance(n, ast.Attribute | ast.Name)]
            self.assertEqual(any(reads_the_environment(n) for n in names), reads, code)


def reads_the_environment(node: ast.Attribute | ast.Name) -> bool:
    """Whether a name is ``os.environ`` or ``getenv``; a plain ``environ`` is an argument."""
    if isinstance(node, ast.Name):
        return node.id in ("getenv", "getenvb")
    owner = node.value
    return isinstance(owner, ast.Name) and owner.id == "os" and "env" in node.attr


def top_level_imports(path: Path) -> list[tuple[int, str]]:
    """Return the imports of a module that stand outside functions and classes."""
    body = [n for n in trees()[path].body if isinstance(n, ast.Import | ast.ImportFrom)]
    return list(imports(ast.Module(body=list(body), type_ignores=[])))


class CatalogueTests(unittest.SynchronousTestCase):
    """Events and metrics: in the code = handled by a sink = on the page."""

    def setUp(self) -> None:
        self.union = {cls.__name__: cls for cls in get_args(events.Event)}
        self.page = sections((ROOT / "docs" / "events.rst").read_text("utf-8"))

    def test_every_class_is_an_event_or_part_of_one(self) -> None:
        parts = {"Who", "CredentialUse", "Finding"}
        defined = {
            name
            for name, cls in vars(events).items()
            if inspect.isclass(cls) and cls.__module__ == events.__name__
        }
        self.assertEqual(defined, set(self.union) | parts)
        for cls in self.union.values():
            with self.assertRaises(attrs.exceptions.FrozenInstanceError):
                sample = next(one for one in ONE_OF_EACH if type(one) is cls)
                setattr(sample, attrs.fields(cls)[0].name, None)

    def test_every_event_has_a_sink_and_none_is_unknown(self) -> None:
        directory = self.mktemp()
        clock = Clock()
        publisher = Publisher(
            AuditLog(directory),
            [
                AccessLog(directory, clock),
                Metrics(CollectorRegistry()),
                Diagnostics(Logger("slapenir")),
            ],
        )
        self.assertEqual(publisher.handled, frozenset(self.union.values()))
        self.assertEqual({type(one) for one in ONE_OF_EACH}, set(self.union.values()))

    def test_every_event_is_on_the_page_with_its_fields(self) -> None:
        self.assertEqual(set(self.page), set(self.union))
        for name, cls in self.union.items():
            for attribute in attrs.fields(cls):
                if attribute.name != "who":
                    self.assertIn(f"``{attribute.name}``", self.page[name], name)

    def test_the_example_records_are_what_is_written(self) -> None:
        """Each example line on the page has the keys of the real record, in their order."""
        writers: dict[type, Any] = {**AUDITED, events.ExchangeFinished: exchange_finished}
        for sample in (*ONE_OF_EACH, HONEYTOKEN):
            writer = writers.get(type(sample))
            if writer is None:
                continue
            real = list(json.loads("{" + writer(sample) + "}"))
            shown = [
                [key for key in line if key not in ("time", "sequence", "left_out")]
                for line in examples(self.page[type(sample).__name__])
            ]
            self.assertIn(real, shown, type(sample).__name__)


def sections(page: str) -> dict[str, str]:
    """Return the text of each event's section (underlined with ~) by its title."""
    parts = re.split(r"^(\S.*)\n([-~]{3,})\n", page, flags=re.MULTILINE)
    found = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return {title: text for title, line, text in found if line[0] == "~"}


def examples(text: str) -> list[dict[str, Any]]:
    """Return the JSON lines shown in a section."""
    return [json.loads(line) for line in re.findall(r"^ +(\{.*\})$", text, flags=re.MULTILINE)]


class MetricsPageTests(unittest.SynchronousTestCase):
    """docs/metrics.rst lists every metric with its kind and labels, and no other."""

    def test_the_page_is_the_catalogue(self) -> None:
        page = (ROOT / "docs" / "metrics.rst").read_text("utf-8")
        pattern = r"^\.\. describe:: (\w+)(?:\{([\w,]*)\})?\n\n   (Counter|Gauge|Histogram)\. "
        shown = [
            (name, kind.lower(), tuple(labels.split(",")) if labels else ())
            for name, labels, kind in re.findall(pattern, page, flags=re.MULTILINE)
        ]
        self.assertEqual(shown, [(f.name, f.kind, f.labels) for f in FAMILIES])
        self.assertEqual(page.count(".. describe:: slapenir_"), len(FAMILIES))
