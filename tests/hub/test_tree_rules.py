"""What a tree may hold, rule by rule, over objects that stand in a dictionary: names, modes, order, sizes, bounds."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.ids import ObjectId
from workbench.domain.tree_rules import (
    BadTree,
    Measure,
    RawEntry,
    TreeLimits,
    TreeWalk,
    judge_attributes,
    judge_entries,
    judge_name,
    parse_tree,
    shown,
)

LIMITS = TreeLimits()
X = ObjectId("1" * 40)

HOSTILE = [
    (b"", "traversal"),
    (b".", "traversal"),
    (b"..", "traversal"),
    (b"a/b", "traversal"),
    (b"../x", "traversal"),
    (b".git", "git-name"),
    (b".GIT", "git-name"),
    (b".giT", "git-name"),
    (b"git~1", "git-name"),
    (b"GIT~1", "git-name"),
    (b"gi7eba~1", "git-name"),
    (b"gitmod~1", "git-name"),
    (b".git~2", "git-name"),
    (b".git ", "edge"),
    (b".git.", "edge"),
    (b".git::$INDEX_ALLOCATION", "character"),
    (".g\u200cit".encode(), "control-character"),
    (".git\u200b".encode(), "control-character"),
    (b".gitmodules", "submodule"),
    (b".GitModules", "submodule"),
    (b"con", "device-name"),
    (b"CON.txt", "device-name"),
    (b"aux.a.b.c", "device-name"),
    (b"nul", "device-name"),
    (b"prn.c", "device-name"),
    (b"com0", "device-name"),
    (b"COM9.log", "device-name"),
    (b"lpt1", "device-name"),
    ("com¹".encode(), "device-name"),
    (b"conin$", "device-name"),
    (b"CONOUT$", "device-name"),
    (b"con .txt", "device-name"),
    (b"a\\b", "character"),
    (b"a:b", "character"),
    (b"a*", "character"),
    (b"a?", "character"),
    (b'a"', "character"),
    (b"<a", "character"),
    (b"a>", "character"),
    (b"a|b", "character"),
    (b"a\nb", "control-character"),
    (b"a\rb", "control-character"),
    (b"a\tb", "control-character"),
    (b"a\x1b[31m", "control-character"),
    (b"a\x7f", "control-character"),
    ("a\u0085".encode(), "control-character"),
    ("a\u202egnp.exe".encode(), "control-character"),
    ("a\u2066b".encode(), "control-character"),
    ("a\u00adb".encode(), "control-character"),
    ("\ufeffa".encode(), "control-character"),
    ("a\u2028b".encode(), "control-character"),
    ("a\ue000".encode(), "control-character"),
    ("a\ufdd0".encode(), "control-character"),
    ("a\u0378".encode(), "control-character"),
    ("a\U000e0041".encode(), "control-character"),
    ("e\u0301".encode(), "unicode-form"),
    ("\u212b".encode(), "unicode-form"),
    (b"\xff", "utf-8"),
    (b"a\xc3", "utf-8"),
    (b"\xc0\xae", "utf-8"),
    (b"\xed\xa0\x80", "utf-8"),
    (b"-rf", "leading-dash"),
    (b"--upload-pack=x", "leading-dash"),
    (b" a", "edge"),
    (b"a ", "edge"),
    (b"a.", "edge"),
    (b"...", "edge"),
    (b"$(id)", "shell"),
    (b"`id`", "shell"),
    (b"a" * 256, "name-length"),
    (("é" * 128).encode(), "name-length"),
]
HARMLESS = [
    b"a", b"A-b_c.d", b".gitignore", b".gitattributes", b".github", b"git", b"git~", b"gitmodules", b".git-blame",
    b"console", b"com", b"com10", b"lpt", b"auxiliary.c", b"nullable.rs", b"a b", b"a$b", b"a(b)", b"a&b;c", b"a'b",
    b"#a#", b"~a", b"~1", b"a~1", b"...a", b"a..b", b".a", b"_", b"a" * 255, b"100%", b"a[0]", b"{a}", b"@", b"a+b=c",
    b"!a", *(text.encode() for text in ("é", "日本語.rs", "naïve café", "🦀", "ﬁ", "Ω")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule"), HOSTILE, ids=lambda value: ascii(value)[:30])
def test_a_hostile_name_breaks_its_rule(name: bytes, rule: str) -> None:
    verdict = judge_name(name, LIMITS)
    assert verdict
    assert verdict[0] == rule
    assert verdict[1]


@pytest.mark.parametrize("name", HARMLESS, ids=lambda value: ascii(value)[:30])
def test_a_harmless_name_is_allowed(name: bytes) -> None:
    assert judge_name(name, LIMITS) is None


@settings(max_examples=500)
@given(st.binary(max_size=20) | st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_an_allowed_name_is_text_that_is_safe_to_print_and_to_write_anywhere(name: bytes) -> None:
    if judge_name(name, LIMITS) is not None:
        return
    text = name.decode("utf-8")
    assert text == unicodedata.normalize("NFC", text)
    assert text.isprintable() or any(unicodedata.category(c) == "Zs" for c in text)
    assert not set('/\\:*?"<>|`\0\n\r\t') & set(text)
    assert text not in ("", ".", "..")
    assert not text.startswith(("-", " "))
    assert not text.endswith((" ", "."))
    assert text.casefold() not in (".git", "git~1", "con", "nul", "aux", "prn")


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_what_is_shown_of_a_name_is_short_printable_ascii(name: bytes | str) -> None:
    said = shown(name)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 60


# --- entries of one tree ----------------------------------------------------------------------------------------------


def entry(name: bytes, mode: bytes = b"100644") -> RawEntry:
    return RawEntry(mode, name, X)


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ([entry(b"a"), entry(b"b")], ""),
        ([entry(b"a.b"), entry(b"a", b"40000"), entry(b"a0")], ""),
        ([entry(b"a", b"40000"), entry(b"a.b")], "order"),
        ([entry(b"b"), entry(b"a")], "order"),
        ([entry(b"a"), entry(b"a")], "case-collision"),
        ([entry(b"A"), entry(b"a")], "case-collision"),
        ([entry(b"A"), entry(b"a", b"40000")], "case-collision"),
        ([entry(b"STRASSE"), entry("straße".encode())], "case-collision"),
        ([entry(b"a", b"120000")], "symlink"),
        ([entry(b"a", b"160000")], "gitlink"),
        ([entry(b"a", b"100664")], "mode"),
        ([entry(b"a", b"0100644")], "mode"),
        ([entry(b"a", b"040000")], "mode"),
        ([entry(b"a", b"104755")], "mode"),
        ([entry(b"a", b"")], "mode"),
        ([entry(b"a", b"100755")], ""),
        ([entry(b"HEAD"), entry(b"objects", b"40000"), entry(b"refs", b"40000")], "embedded-repository"),
        ([entry(b"HEAD"), entry(b"refs", b"40000")], ""),
    ],
)
def test_the_entries_of_a_tree_are_judged_together(entries: list[RawEntry], rule: str) -> None:
    problem = judge_entries(entries, "some/folder", LIMITS)
    assert (problem.rule if problem else "") == rule
    if problem:
        assert problem.fix in problem.line
        assert problem.line.isascii()


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [
        (b"* filter=lfs\n", True),
        (b"* -text filter=x\n", True),
        (b"*.rs filter\n", True),
        (b"* diff=x\n", True),
        (b"* merge=x\n", True),
        (b"[attr]evil filter=x\n", True),
        (b'"a b" filter=x\n', True),
        (b"\xef\xbb\xbf* filter=x\n", True),
        (b"* text\r\n* filter=x\r\n", True),
        (b"*\tfilter=x", True),
        (b"* text=auto eol=lf -delta\n", False),
        (b"* diff\n*.png -diff -merge binary\n", False),
        (b"* merge=union\n* merge=text\n* merge=binary\n", False),
        (b"# * filter=x\n", False),
        (b"filter=x\n", False),
        (b"* -filter\n", False),
        (b"", False),
        (b"\xff\xfe\n", False),
    ],
)
def test_attributes_may_not_name_a_driver(text: bytes, is_bad: bool) -> None:
    assert (judge_attributes(text, "a/.gitattributes") is not None) is is_bad


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_a_tree_or_are_said_to_be_none(data: bytes, limit: int) -> None:
    try:
        entries = parse_tree(data, limit)
    except ValueError:
        return
    assert len(entries) <= limit + 1
    if len(entries) <= limit:
        joined = b"".join(e.mode + b" " + e.name + b"\0" + bytes.fromhex(e.id) for e in entries)
        assert joined == data


# --- whole trees ------------------------------------------------------------------------------------------------------


@dataclass
class Store:
    objects: dict[ObjectId, tuple[str, bytes]] = field(default_factory=dict)
    num_read: int = 0

    def add(self, kind: str, data: bytes) -> ObjectId:
        id = ObjectId(hashlib.sha1(kind.encode() + data).hexdigest())
        self.objects[id] = (kind, data)
        return id

    def blob(self, data: bytes = b"x") -> ObjectId:
        return self.add("blob", data)

    def tree(self, **entries: ObjectId) -> ObjectId:
        """Names in order; an id of a tree is a folder."""
        data = b""
        for name, id in entries.items():
            mode = b"40000" if self.objects.get(id, ("", b""))[0] == "tree" else b"100644"
            data += mode + b" " + name.encode() + b"\0" + bytes.fromhex(id)
        return self.add("tree", data)

    def walk(
        self, root: ObjectId, limits: TreeLimits = LIMITS, clean: dict[ObjectId, Measure] | None = None
    ) -> Measure:
        return TreeWalk(header=self.header, read=self.read, clean={} if clean is None else clean, limits=limits).check(
            root
        )

    def header(self, id: ObjectId) -> tuple[str, int] | None:
        return (self.objects[id][0], len(self.objects[id][1])) if id in self.objects else None

    def read(self, id: ObjectId) -> bytes:
        self.num_read += 1
        return self.objects[id][1]

    def rule(self, root: ObjectId, limits: TreeLimits = LIMITS) -> str:
        with pytest.raises(BadTree) as caught:
            self.walk(root, limits)
        return caught.value.problem.rule

    def deep(self, depth: int) -> ObjectId:
        tree = self.tree(f=self.blob())
        for _ in range(depth - 1):
            tree = self.tree(d=tree)
        return tree


def test_a_clean_tree_is_measured_and_remembered() -> None:
    store, clean = Store(), {}
    inner = store.tree(a=store.blob(), b=store.blob())
    root = store.tree(x=inner, y=inner, z=store.blob())
    assert store.walk(root, clean=clean) == Measure(paths=7, height=2)
    assert store.num_read == 2, "a shared folder is read once"
    assert store.walk(root, clean=clean) == Measure(paths=7, height=2)
    assert store.walk(store.tree(w=root), clean=clean) == Measure(paths=8, height=3)
    assert store.num_read == 3


def test_bounds_are_sharp() -> None:
    store, limits = Store(), TreeLimits(depth=3, entries=4, paths=10, blob_bytes=5)
    assert store.walk(store.deep(3), limits).height == 3
    assert store.rule(store.deep(4), limits) == "depth"
    blob = store.blob()
    four = store.tree(a=blob, b=blob, c=blob, d=blob)
    assert store.walk(four, limits).paths == 4
    assert store.rule(store.tree(a=blob, b=blob, c=blob, d=blob, e=blob), limits) == "entries"
    assert store.walk(store.tree(x=four, y=four), limits).paths == 10
    assert store.rule(store.tree(w=blob, x=four, y=four), limits) == "paths"
    assert store.walk(store.tree(a=store.blob(b"12345")), limits).paths == 1
    assert store.rule(store.tree(a=store.blob(b"123456")), limits) == "size"
    assert store.walk(store.tree(a=store.blob(b"123456")), TreeLimits(blob_bytes=None)).paths == 1


def test_depth_counts_also_through_what_is_remembered() -> None:
    store, limits, clean = Store(), TreeLimits(depth=4), {}
    store.walk(store.deep(3), limits, clean)
    store.walk(store.tree(a=store.deep(3)), limits, clean)
    with pytest.raises(BadTree, match="deeper than 4"):
        store.walk(store.tree(a=store.tree(b=store.deep(3))), limits, clean)


def test_a_bomb_is_refused_before_it_is_expanded() -> None:
    store = Store()
    tree = store.tree(**{f"f{n}": store.blob() for n in range(10)})
    for _ in range(9):
        tree = store.tree(**{f"d{n}": tree for n in range(10)})
    assert store.rule(tree) == "paths"
    assert store.num_read <= 10


def test_what_is_not_what_its_mode_says_is_refused() -> None:
    store = Store()
    blob, tree = store.blob(), store.tree(a=store.blob())
    raw = lambda mode, id: store.add("tree", mode + b" a\0" + bytes.fromhex(id))  # noqa: E731
    assert store.rule(raw(b"40000", blob)) == "kind"
    assert store.rule(raw(b"100644", tree)) == "kind"
    assert store.rule(raw(b"100644", X)) == "kind"
    assert store.rule(raw(b"40000", X)) == "kind"
    assert store.rule(blob) == "kind"
    assert store.rule(X) == "kind"
    assert store.rule(store.add("tree", b"100644 a\0123")) == "kind"
    assert store.rule(store.add("tree", b"100644a")) == "kind"


def test_a_tree_object_that_is_too_large_is_not_even_read() -> None:
    store = Store()
    assert store.rule(store.add("tree", bytes(100)), TreeLimits(tree_bytes=99)) == "entries"
    assert store.num_read == 0


def test_the_problem_is_named_with_its_path() -> None:
    store = Store()
    bad = store.tree(a=store.tree(**{"-x": store.blob()}))
    with pytest.raises(BadTree, match=r"^a/-x: rename it"):
        store.walk(bad)


def test_attributes_are_read_in_every_folder() -> None:
    store = Store()
    evil, fine = store.blob(b"* filter=x"), store.blob(b"* text")
    assert store.rule(store.tree(a=store.tree(**{".gitattributes": evil}))) == "driver"
    assert store.rule(store.tree(**{".GITATTRIBUTES": evil})) == "driver"
    assert store.walk(store.tree(**{".gitattributes": fine})).paths == 1
    assert store.rule(store.tree(**{".gitattributes": store.blob(b"#" * 65537)})) == "size"
