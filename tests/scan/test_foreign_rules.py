"""Reading a rule pack: what is wrong is named with its rule, its key and a remedy."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from slapenir.errors import ConfigErrors
from slapenir.scan.checksums import CHECKS
from slapenir.scan.foreign_rules import LONGEST, SEVERITIES, load_rules
from tests.scan.packs import pack, rule_text
from tests.scan.recipes import rendered

GOOD = "some_[a-z]{20}"


class ReadingTests(SynchronousTestCase):
    """load_rules."""

    def wrong(self, text: str) -> list[tuple[str, str]]:
        """Return path and message of each error, and see that each says what to do."""
        errors = self.assertRaises(ConfigErrors, load_rules, text, "pack.toml").errors
        for error in errors:
            self.assertTrue(error.remedy or "TOML" in error.message, error.message)
            self.assertIn("pack.toml", str(error))
        return [(error.path, error.message) for error in errors]

    def test_a_good_rule(self) -> None:
        more = {"check": '"jwt"', "entropy": "3", "edges": '"left"'}
        (rule,) = load_rules(rule_text(GOOD, **more))
        self.assertEqual((rule.id, rule.pattern, rule.check), ("some-kind", GOOD, "jwt"))
        self.assertEqual((rule.entropy, rule.edges, rule.tree.lengths), (3.0, "left", (25, 25)))
        (plain,) = load_rules(rule_text(GOOD))
        self.assertEqual((plain.check, plain.entropy, plain.edges), ("", 0.0, "both"))

    def test_one_wrong_key(self) -> None:
        """Each wrong value is refused at its key; the rule beside it, which is right, is not."""
        for key, value in (
            ("id", '"Some_Kind"'),
            ("id", "7"),
            ("title", '""'),
            ("title", "[]"),
            ("source", '"http://example.test/"'),
            ("severity", '"dire"'),
            ("check", '"luhn"'),
            ("edges", '"right"'),
            ("entropy", '"3"'),
            ("entropy", "true"),
            ("entropy", "0"),
            ("entropy", "8"),
            ("colour", '"red"'),
        ):
            text = rule_text(GOOD, "right") + rule_text(GOOD, **{key: value})
            self.assertEqual([path for path, _ in self.wrong(text)], [f"$.rule[1].{key}"], value)

    def test_every_needed_key(self) -> None:
        for key in ("id", "title", "group", "source", "severity", "pattern", "example"):
            ((path, message),) = self.wrong(rule_text(GOOD, **{key: ""}))
            self.assertEqual(path, f"$.rule[0].{key}")
            self.assertIn("is missing", message)

    def test_patterns(self) -> None:
        for pattern, said in (
            ("some_.*", ". is not in the subset"),
            ("some_[a-z]{20", "count"),
            ("some_[a-z]{5}", "matches 10 bytes"),
            (f"some_[a-z]{{{LONGEST}}}", f"matches {LONGEST + 5} bytes"),
            ("ab[a-z]{20}", "no three bytes"),
        ):
            ((path, message),) = self.wrong(rule_text(pattern))
            self.assertEqual(path, "$.rule[0].pattern")
            self.assertIn(said, message)
            self.assertIn("rule some-kind: ", message)

    def test_all_that_is_wrong(self) -> None:
        """One error for each, in the order of the file; an id of two rules is one too."""
        text = rule_text(GOOD, title="1") + rule_text(GOOD, "b") + rule_text(GOOD, "b", check="1")
        self.assertEqual(
            [path for path, _ in self.wrong(text)], ["$.rule[0].title", "$.rule[2].check"]
        )
        twice = self.wrong(rule_text(GOOD, "b") + rule_text(GOOD, "b"))
        self.assertEqual([path for path, _ in twice], ["$.rule[1].id"])

    def test_documents(self) -> None:
        self.assertIn("not TOML", self.wrong("[[rule")[0][1])
        self.assertEqual([path for path, _ in self.wrong("")], ["$.rule"])
        self.assertEqual([path for path, _ in self.wrong("rule = 1")], ["$.rule"])
        found = self.wrong("[other]\n" + rule_text(GOOD))
        self.assertIn("unknown table other", found[0][1])


class ShippedTests(SynchronousTestCase):
    """The shipped pack as a table."""

    def test_size_and_ids(self) -> None:
        ids = Counter(rule.id for rule in pack())
        self.assertGreaterEqual(len(ids), 130)
        self.assertEqual(set(ids.values()), {1})

    def test_titles_are_told_apart(self) -> None:
        titles = Counter(rule.title for rule in pack())
        self.assertEqual([title for title, count in titles.items() if count > 1], [])

    def test_every_rule_has_a_source(self) -> None:
        bad = [r.id for r in pack() if not re.fullmatch(r"https://[\w.-]+\.[a-z]+/\S*", r.source)]
        self.assertEqual(bad, [])

    def test_groups_are_not_scattered(self) -> None:
        groups = [rule.group for rule in pack()]
        changes = [b for a, b in pairwise(groups) if a != b]
        self.assertEqual(len(changes) + 1, len(set(groups)))

    def test_everything_is_used(self) -> None:
        self.assertEqual({rule.severity for rule in pack()}, set(SEVERITIES))
        self.assertEqual({rule.check for rule in pack()} - {""}, set(CHECKS))

    def test_random_parts_are_judged(self) -> None:
        """A rule has a check, an entropy, or a form of its own that says enough."""
        plain = {r.id for r in pack() if not r.check and not r.entropy}
        told = {r.id for r in pack() if r.edges != "both" or r.group.startswith("Private keys")}
        self.assertEqual(plain - told, {"zapier-hook-url"})

    def test_no_example_is_spelled_out(self) -> None:
        """What looks like a secret is not in the repository: every example is made of parts."""
        for rule in pack():
            self.assertRegex(rule.example, r"\{[a-zA-Z=]", rule.id)


class RecipeTests(SynchronousTestCase):
    """The language of recipes."""

    def test_parts(self) -> None:
        self.assertRegex(rendered("a-{digit:5}{nl}{=b}", "s"), rb"\Aa-[0-9]{5}\nb\Z")
        self.assertEqual(rendered("{x:3}$", "s"), b"xxx$")
        self.assertEqual(rendered("{json:alg=none}", "s"), b"eyJhbGciOiJub25lIn0")
        self.assertRegex(rendered("k1{BECH32:4}", "s"), rb"\Ak1[A-Z0-9]{10}\Z")
        self.assertRegex(rendered("{alnum:9}{crc}", "s"), rb"\A[A-Za-z0-9]{15}\Z")

    def test_the_same_for_the_same_seed(self) -> None:
        first, again, other = (rendered("{hex:40}", seed) for seed in ("a", "a", "b"))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_unknown_parts(self) -> None:
        for recipe in ("{octal:3}", "{alnum}", "{alnum:x}"):
            self.assertRaises(ValueError, rendered, recipe, "s")
