"""A hundred hostile object sets: seeds from real attacks and mutations of them. A builder returns updates to push."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

ZERO = "0" * 40
HEAD = "refs/heads/hostile"
Build = Callable[..., list[tuple[str, str, str]]]

NAMES: dict[str, bytes] = {
    "dot-git": b".git",
    "dot-git-upper": b".GIT",
    "dot-git-blank": b".git ",
    "dot-git-dot": b".git.",
    "short-git": b"git~1",
    "short-git-upper": b"GIT~1",
    "hfs-git": ".g\u200cit".encode(),
    "hfs-git-end": ".git\u200b".encode(),
    "stream-git": b".git::$INDEX_ALLOCATION",
    "dot-dot": b"..",
    "dot": b".",
    "empty": b"",
    "slash": b"a/b",
    "backslash": b"a\\b",
    "backslash-up": b"..\\..\\x",
    "aux": b"aux",
    "aux-ext": b"AUX.txt",
    "aux-long": b"aux.a-very-long-extension",
    "con": b"con.txt",
    "nul": b"nul",
    "prn": b"prn.c",
    "com1": b"com1",
    "lpt9": b"lpt9.log",
    "conin": b"conin$",
    "com-superscript": "COM¹".encode(),
    "colon": b"a:b",
    "star": b"a*b",
    "question": b"a?b",
    "less": b"a<b",
    "quote": b'a"b',
    "bar": b"a|b",
    "tab": b"a\tb",
    "newline": b"a\nb",
    "return": b"a\rb",
    "escape": b"a\x1b[31mb",
    "delete": b"a\x7fb",
    "c1": "a\u009bb".encode(),
    "bidi": "a\u202etxt.exe".encode(),
    "isolate": "a\u2066b".encode(),
    "zero-width": "a\u200bb".encode(),
    "bom": "\ufeffa".encode(),
    "separator": "a\u2028b".encode(),
    "invalid-utf8": b"\xff\xfe",
    "cut-utf8": b"a\xc3",
    "surrogate": b"\xed\xa0\x80",
    "nfd": "e\u0301".encode(),
    "long": b"n" * 256,
    "very-long": b"n" * 5000,
    "dash": b"-rf",
    "dash-dash": b"--help",
    "blank-first": b" a",
    "blank-last": b"a ",
    "dot-last": b"a.",
    "substitution": b"$(id)",
    "backtick": b"`id`",
    "gitmodules": b".gitmodules",
    "gitmodules-upper": b".GITMODULES",
    "short-gitmodules": b"gitmod~1",
    "short-hash": b"gi7eba~1",
    "nonchar": "a\ufdd0b".encode(),
}
MODES = ["120000", "160000", "100664", "100666", "104755", "0100644", "777", "40755", "100600"]


def _named(name: bytes) -> Build:
    return lambda o, h: [(ZERO, o.commit(o.tree(("100644", name, o.blob()))), HEAD)]


def _folder(name: bytes) -> Build:
    return lambda o, h: [(ZERO, o.commit(o.tree(("40000", name, o.tree(("100644", b"f", o.blob()))))), HEAD)]


def _mode(mode: str) -> Build:
    def build(o, h):
        target = o.commit(o.tree(("100644", b"f", o.blob()))) if mode == "160000" else o.blob(b"/etc/passwd")
        return [(ZERO, o.commit(o.tree((mode, b"entry", target))), HEAD)]

    return build


def _tree(make: Callable[..., str]) -> Build:
    return lambda o, h: [(ZERO, o.commit(make(o)), HEAD)]


def _attributes(text: bytes, inside: bool = False) -> Build:
    def make(o):
        tree = o.tree(("100644", b".gitattributes", o.blob(text)))
        return o.tree(("40000", b"sub", tree)) if inside else tree

    return _tree(make)


def _deep(depth: int) -> Callable[..., str]:
    def make(o):
        tree = o.tree(("100644", b"f", o.blob()))
        for _ in range(depth):
            tree = o.tree(("40000", b"d", tree))
        return tree

    return make


def _bomb(width: int, height: int) -> Callable[..., str]:
    def make(o):
        tree = o.tree(*(("100644", b"f%d" % i, o.blob()) for i in range(width)))
        for _ in range(height - 1):
            tree = o.tree(*(("40000", b"d%d" % i, tree) for i in range(width)))
        return tree

    return make


def _wide(count: int) -> Callable[..., str]:
    return lambda o: o.tree(*(("100644", b"f%07d" % i, o.blob()) for i in range(count)))


def _artifact(manifest: bytes | dict, payload: bool = True, parent: bool = False, extra: bool = False) -> Build:
    def build(o, h):
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        entries = [("100644", b"manifest.json", o.blob(data))]
        if payload:
            entries.append(("40000", b"payload", o.tree(("100644", b"a.txt", o.blob(b"a\n")))))
        if extra:
            entries.append(("100644", b"more", o.blob()))
        commit = o.commit(o.tree(*entries), *([h["refs/heads/main"]] if parent else []))
        return [(ZERO, o.tag(commit, "raw/rust/v1.0.0"), "refs/tags/raw/rust/v1.0.0")]

    return build


def _repeats(files: int, chunks: int) -> Build:
    """Two blobs of 4 MiB, named in another order by each file: 70 GiB in a pack of some kilobytes."""

    def build(o, h):
        blobs = [o.blob(bytes([number]) * (4 << 20)) for number in range(2)]
        entries = []
        for file in range(files):
            names = [b"%03d" % chunk for chunk in range(chunks)]
            group = o.tree(*[("100644", name, blobs[chunk % (file + 2) == 0]) for chunk, name in enumerate(names)])
            entries.append(("40000", b"%02d.bin" % file, o.tree(("40000", b"00", group))))
        listed = [
            {"path": name.decode(), "sha256": "0" * 64, "size": chunks << 22, "chunks": chunks}
            for _, name, _ in entries
        ]
        manifest = json.dumps(_manifest(name="x", files=listed)).encode()
        tree = o.tree(("40000", b"payload", o.tree(*entries)), ("100644", b"manifest.json", o.blob(manifest)))
        return [(ZERO, o.tag(o.commit(tree), "raw/x/v1.0.0"), "refs/tags/raw/x/v1.0.0")]

    return build


def _manifest(**changes) -> dict:
    sha = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"
    good = {
        "format": 1, "kind": "raw", "name": "rust", "files": [{"path": "a.txt", "sha256": sha, "size": 2}],
        "inputs": [], "params": {}, "seed": 0, "stage": "crawl", "code": "", "environment": {}, "action_key": "",
        "counts": {}, "metrics": {},
    }  # fmt: skip
    return {**good, **changes}


def _ref(ref: str) -> Build:
    return lambda o, h: [(ZERO, o.commit(o.tree(("100644", b"f", o.blob()))), ref)]


def _tag(name: str, ref: str, on_main: bool = True) -> Build:
    def build(o, h):
        target = h["refs/heads/main"] if on_main else o.commit(o.tree(("100644", b"f", o.blob())))
        return [(h.get(ref, ZERO), o.tag(target, name), ref)]

    return build


def _embedded(o) -> str:
    folder = o.tree(("100644", b"f", o.blob()))
    return o.tree(
        (
            "40000",
            b"d",
            o.tree(("100644", b"HEAD", o.blob()), ("40000", b"objects", folder), ("40000", b"refs", folder)),
        )
    )


def cases() -> Iterator[tuple[str, Build]]:
    for name, raw in NAMES.items():
        yield f"name-{name}", _named(raw)
    for name in ("dot-git-upper", "hfs-git", "aux", "bidi", "backslash-up", "newline"):
        yield f"folder-{name}", _folder(NAMES[name])
    for mode in MODES:
        yield f"mode-{mode}", _mode(mode)
    blob = lambda o: o.blob()  # noqa: E731
    yield "case-collision", _tree(lambda o: o.tree(("100644", b"A", blob(o)), ("100644", b"a", blob(o))))
    yield "case-fold", _tree(lambda o: o.tree(*(("100644", n.encode(), blob(o)) for n in ("stra\u00dfe", "STRASSE"))))
    yield (
        "file-and-folder",
        _tree(lambda o: o.tree(("100644", b"A", blob(o)), ("40000", b"a", o.tree(("100644", b"f", blob(o)))))),
    )
    yield "twice", _tree(lambda o: o.tree(("100644", b"a", blob(o)), ("100644", b"a", blob(o))))
    yield "unsorted", _tree(lambda o: o.tree(("100644", b"b", blob(o)), ("100644", b"a", blob(o)), sort=False))
    yield "deep-65", _tree(_deep(65))
    yield "deep-5000", _tree(_deep(5000))
    yield "bomb-10^10", _tree(_bomb(10, 10))
    yield "bomb-1000^3", _tree(_bomb(1000, 3))
    yield "wide-20001", _tree(_wide(20_001))
    yield "wide-300000", _tree(_wide(300_000))
    yield "embedded-repository", _tree(_embedded)
    yield "tree-is-blob", _tree(lambda o: o.tree(("40000", b"d", o.blob())))
    yield "blob-is-tree", _tree(lambda o: o.tree(("100644", b"f", o.tree(("100644", b"g", o.blob())))))
    yield "missing-blob", _tree(lambda o: o.tree(("100644", b"f", "1" * 40)))
    yield "cut-off-tree", _tree(lambda o: o.add("tree", b"100644 a\0123"))
    yield "root-is-blob", _tree(lambda o: o.blob())
    for driver in (b"filter=evil", b"diff=evil", b"merge=evil"):
        yield f"attributes-{driver.decode()}", _attributes(b"* " + driver + b"\n")
    yield "attributes-macro", _attributes(b"[attr]evil filter=evil\n* evil\n")
    yield "attributes-below", _attributes(b"*.rs filter=lfs\n", inside=True)
    yield "attributes-huge", _attributes(b"# long\n" * 20_000)
    yield "zeros-9MiB", _tree(lambda o: o.tree(("100644", b"zeros", o.blob(bytes(9 << 20)))))
    yield "zeros-64MiB", _tree(lambda o: o.tree(("100644", b"zeros", o.blob(bytes(64 << 20)))))
    yield (
        "long-message",
        lambda o, h: [(ZERO, o.commit(o.tree(("100644", b"f", o.blob())), message="m" * (2 << 20)), HEAD)],
    )
    yield "artifact-no-json", _artifact(b"{")
    yield "artifact-nested", _artifact(b"[" * 100_000)
    yield "artifact-format", _artifact(_manifest(format=99))
    yield "artifact-kind", _artifact(_manifest(kind="model"))
    yield "artifact-size", _artifact(_manifest(files=[{"path": "a.txt", "sha256": "0" * 64, "size": 3}]))
    yield "artifact-checksum", _artifact(_manifest(files=[{"path": "a.txt", "sha256": "0" * 64, "size": 2}]))
    yield "artifact-missing", _artifact(_manifest(), payload=False)
    yield "artifact-unlisted", _artifact(_manifest(files=[]))
    yield "artifact-outside", _artifact(_manifest(files=[{"path": "../manifest.json", "sha256": "0" * 64, "size": 2}]))
    yield "artifact-parent", _artifact(_manifest(), parent=True)
    yield "artifact-more", _artifact(_manifest(), extra=True)
    yield "artifact-repeats", _repeats(files=20, chunks=900)
    yield "ref-ledger", _ref("refs/workbench/ledger2")
    yield "ref-channel", _ref("refs/workbench/channels/active")
    yield "ref-replace", _ref("refs/replace/" + "1" * 40)
    yield "ref-notes", _ref("refs/notes/commits")
    yield "ref-tag-free", _ref("refs/tags/latest")
    yield "tag-light", lambda o, h: [(ZERO, h["refs/heads/main"], "refs/tags/v2.0.0")]
    yield "tag-moved", _tag("v1.0.0", "refs/tags/v1.0.0")
    yield "tag-older", _tag("v0.9.0", "refs/tags/v0.9.0")
    yield "tag-renamed", _tag("v3.0.0", "refs/tags/v2.0.0")
    yield "tag-off-main", _tag("v2.0.0", "refs/tags/v2.0.0", on_main=False)
    yield (
        "tag-of-tree",
        lambda o, h: [(ZERO, o.tag(o.tree(("100644", b"f", o.blob())), "v2.0.0", "tree"), "refs/tags/v2.0.0")],
    )
    yield "tag-deleted", lambda o, h: [(h["refs/tags/v1.0.0"], ZERO, "refs/tags/v1.0.0")]
    yield (
        "main-rewritten",
        lambda o, h: [(h["refs/heads/main"], o.commit(o.tree(("100644", b"f", o.blob()))), "refs/heads/main")],
    )
