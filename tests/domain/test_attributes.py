"""``.gitattributes`` beside git's own reading of the same lines."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from workbench.domain.attributes import driver

PATTERNS = [
    *(
        b"*",
        b'"*"',
        b'"[!\\r#]*"',
        b'"[!\r#]*"',
        b"[!#]*",
        b"x",
        b'"x"',
        b'"\\170"',
        b'"\\x"',
        b'"x',
        b'"\\400"',
        b"# *",
    ),
    *(
        b'"x"y',
        b"\xef\xbb\xbf*",
        b'\xef\xbb\xbf"*"',
        b"[attr]",
        b"\\*",
        b"!x",
        b"**",
        b'"a\tb"',
        b"\x0b*",
        b"\x0c",
        b"",
    ),
    *(b"*\0", b'"*\\"'),
]
WORDS = [
    *(b"filter=evil", b"filter", b"-filter", b"!filter", b"filter=", b"diff=x", b"diff", b"-diff", b"merge=x"),
    *(b"merge=union", b"merge=text", b"merge", b"text", b"eol=lf", b"-delta", b"a/b", b"=x", b"-", b"--filter=x"),
    *(b"-filter=x", b"\x0bfilter=x", b'"filter=x', b"fil\0ter=x", b"filter=x\0", b"\xc3\xa9", b"filter=evil\x0b"),
    *(b"Filter=x", b"x" * 3000, b".filter=x", b"#", b"filter=a=b"),
]
BLANKS = [b" ", b"\t", b"\r", b" \r\t ", b"", b"\x0b", b"\x0c", b"\xc2\xa0", b"\x1c", b"\x85"]
ENDS = [b"\n", b"\r\n", b"\r", b"", b"\n\n", b"\n* text\n", b"\0\n"]
NAMES = ("x", "README.md", "a\tb")


def _made(draw: random.Random) -> bytes:
    line = draw.choice([b"", b"", b" ", b"\r"]) + draw.choice(PATTERNS) + draw.choice([b" ", b"\t", b"\r", *BLANKS])
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        line += draw.choice(WORDS) + draw.choice([b" ", b" ", b"\r", *BLANKS])
    return line + draw.choice(ENDS)


def _has_driver(name: str, value: str) -> bool:
    if name == "merge":
        return value not in ("set", "unset", "unspecified", "union", "text", "binary", "")
    return (name == "filter" and value not in ("unset", "unspecified")) or (
        name == "diff" and value not in ("set", "unset", "unspecified", "")
    )


def _git_sees(folder: Path, files: list[bytes]) -> list[bool]:
    """For each text, as a folder's own ``.gitattributes``: whether git finds a driver for a file in that folder."""
    subprocess.run(["git", "init", "-q", folder], check=True)
    for number, text in enumerate(files):
        (folder / f"d{number}").mkdir()
        (folder / f"d{number}" / ".gitattributes").write_bytes(text)
    asked = "".join(f"d{number}/{name}\0" for number in range(len(files)) for name in NAMES)
    done = subprocess.run(
        ["git", "-C", folder, "check-attr", "-z", "--stdin", "filter", "diff", "merge"],
        input=asked.encode(),
        capture_output=True,
        check=True,
    )
    found = [False] * len(files)
    answers = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    for path, name, value in zip(answers[::3], answers[1::3], answers[2::3], strict=False):
        found[int(path.partition("/")[0][1:])] |= _has_driver(name, value)
    return found


def test_what_git_sees_in_five_thousand_lines_is_seen(tmp_path: Path) -> None:
    draw = random.Random(1)
    files = [_made(draw) for _ in range(5000)]
    seen = _git_sees(tmp_path / "repository", files)
    assert 300 < sum(seen) < 4500
    missed = [text for text, by_git in zip(files, seen, strict=True) if by_git and not driver(text)]
    assert not missed


@pytest.mark.parametrize("pattern", [b"*", b'"*"', b'"[!\\r#]*"', b"x"])
def test_a_line_in_which_git_sees_no_driver_is_allowed(tmp_path: Path, pattern: bytes) -> None:
    """Where the pattern fits every file that is asked for, git and we agree on every word."""
    draw = random.Random(2)
    words = [word for word in WORDS if b"\0" not in word and len(word) < 2000 and word != b"filter="]
    files = [pattern + b" " + draw.choice(words) + draw.choice(BLANKS) + draw.choice(words) + b"\n" for _ in range(500)]
    seen = _git_sees(tmp_path / "repository", files)
    unlike = [text for text, by_git in zip(files, seen, strict=True) if by_git != bool(driver(text))]
    assert not [text for text in unlike if not _is_overruled(text)]


def _is_overruled(text: bytes) -> bool:
    """A later word of the same name takes the driver back for git; we refuse the line all the same."""
    words = text.split()
    return any(word.lstrip(b"-!") in (b"filter", b"diff", b"merge") or word.startswith(b"merge=") for word in words)


def test_a_macro_that_names_a_driver_is_seen_where_git_takes_macros(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for text in (
        b"[attr]evil filter=x\n* evil\n",
        b"\r[attr]evil\rfilter=x\n* evil\n",
        b'"[attr]evil" filter=x\n* evil\n',
    ):
        (tmp_path / ".gitattributes").write_bytes(text)
        done = subprocess.run(["git", "-C", tmp_path, "check-attr", "filter", "x"], capture_output=True, check=True)
        assert done.stdout == b"x: filter: x\n"
        assert driver(text) == b"filter=x"
