"""Hostile archives, each built here: refused or neutralised, with a rule that says why, nothing outside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.fetch.extractor import extract

WANTED = ("*.rs",)
GOOD = b"fn good() {}\n"
MIB = 1 << 20


def header(
    name: bytes,
    *,
    size: int = 0,
    kind: bytes = b"0",
    target: bytes = b"",
    prefix: bytes = b"",
    size_field: bytes | None = None,
    magic: bytes = b"ustar\x0000",
    checksum: bytes | None = None,
    mode: bytes = b"0000644\0",
) -> bytes:
    block = bytearray(512)
    block[0 : len(name[:100])] = name[:100]
    block[100:108] = mode
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = size_field if size_field is not None else b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(target[:100])] = target[:100]
    block[257:265] = magic
    block[345 : 345 + len(prefix[:155])] = prefix[:155]
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def member(name: bytes, data: bytes = b"fn x() {}\n", **options: object) -> bytes:
    return header(name, size=len(data), **options) + padded(data)  # type: ignore[arg-type]


def pax(kind: bytes = b"x", **values: str) -> bytes:
    records = b""
    for key, value in values.items():
        body = f" {key.replace('__', '.')}={value}\n".encode("utf-8", "surrogateescape")
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        records += str(length).encode() + body
    return header(b"pax", size=len(records), kind=kind) + padded(records)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", size=len(name) + 1, kind=kind) + padded(name + b"\0")


def tar(*members: bytes) -> bytes:
    return member(b"p-1/good.rs", GOOD) + b"".join(members) + b"\0" * 1024


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@dataclass
class Zip:
    """A zip made by hand, so that its directory may lie."""

    members: list[tuple[bytes, bytes, dict[str, int]]]
    end: dict[str, int]
    overlap: bool = False

    def bytes(self) -> bytes:
        out, directory, offset = b"", b"", 0
        for name, data, lies in self.members:
            packed = data if lies.get("method", 0) == 0 else zlib.compress(data, 9)[2:-4]
            packed = packed[: lies.get("cut", len(packed))]
            size, crc = lies.get("size", len(data)), lies.get("crc", zlib.crc32(data))
            method, flags = lies.get("method", 0), lies.get("flags", 0)
            fixed = (20, flags, method, 0, 33, crc, lies.get("packed", len(packed)), size)
            at = 0 if self.overlap else len(out)
            central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x031E, *fixed, len(name), 0, 0, 0, 0,
                                  lies.get("mode", 0o100644) << 16, lies.get("offset", at))  # fmt: skip
            local_name = name[::-1] if lies.get("two_names") else name
            out += struct.pack("<4s5H3L2H", b"PK\3\4", *fixed, len(name), 0) + local_name + packed
            directory += central + name
        offset, count = self.end.get("at", len(out)), self.end.get("count", len(self.members))
        end = struct.pack("<4s4H2LH", b"PK\5\6", self.end.get("disk", 0), 0, count, count,
                          self.end.get("length", len(directory)), offset, 0)  # fmt: skip
        return out + directory + end


def zipped(name: bytes = b"p-1/x.rs", data: bytes = b"fn x() {}\n", **lies: int) -> bytes:
    return Zip([(b"p-1/good.rs", GOOD, {}), (name, data, lies)], {}).bytes()


def zip_ended(**end: int) -> bytes:
    return Zip([(b"p-1/good.rs", GOOD, {})], end).bytes()


def bomb_tar(size: int) -> bytes:
    """A member of zeros that nobody wants, beside a good one."""
    return tar(header(b"p-1/zeros.bin", size=size) + b"\0" * size)


def many_members(count: int) -> bytes:
    return b"".join(header(b"p-1/f%d" % number) for number in range(count))


def deflated_overlap() -> bytes:
    made = Zip([(b"p-1/a.rs", b"fn a() {}\n" * 1000, {}), (b"p-1/a.rs", b"fn a() {}\n" * 1000, {})], {}, overlap=True)
    return made.bytes()


def greedy_xz() -> bytes:
    """The dictionary size of the first block says 4 GiB."""
    made = bytearray(lzma.compress(tar()))
    length = (made[12] + 1) * 4
    made[16] = 40
    made[12 + length - 4 : 12 + length] = struct.pack("<I", zlib.crc32(made[12 : 12 + length - 4]))
    return bytes(made)


def gzip_streams(count: int) -> bytes:
    return gz(tar()[:512]) + gz(b"") * count + gz(tar()[512:])


# A member is left out, the rest is kept.
MEMBERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "parent": (lambda: tar(member(b"../evil.rs")), "parent"),
    "parent in the middle": (lambda: tar(member(b"p-1/a/../../../evil.rs")), "parent"),
    "parent at the end": (lambda: tar(member(b"p-1/..")), "parent"),
    "parent by prefix field": (lambda: tar(member(b"evil.rs", prefix=b"../..")), "parent"),
    "parent by long name": (lambda: tar(long_name(b"../evil.rs"), member(b"x")), "parent"),
    "parent by pax path": (lambda: tar(pax(path="../evil.rs"), member(b"x")), "parent"),
    "absolute": (lambda: tar(member(b"/tmp/evil.rs")), "absolute"),
    "absolute twice": (lambda: tar(member(b"//tmp/evil.rs")), "absolute"),
    "absolute by pax path": (lambda: tar(pax(path="/tmp/evil.rs"), member(b"x")), "absolute"),
    "drive letter": (lambda: tar(member(b"C:/evil.rs")), "absolute"),
    "share": (lambda: tar(member(b"\\\\host\\evil.rs")), "absolute"),
    "backslash parent": (lambda: tar(member(b"p-1\\..\\evil.rs")), "name"),
    "stream of a file": (lambda: tar(member(b"p-1/a.rs:evil.rs")), "name"),
    "link to passwd": (lambda: tar(header(b"p-1/l.rs", kind=b"2", target=b"/etc/passwd")), "link"),
    "link that leaves": (lambda: tar(header(b"p-1/l.rs", kind=b"2", target=b"../../../x")), "link"),
    "link inside": (lambda: tar(header(b"p-1/l.rs", kind=b"2", target=b"good.rs")), "link"),
    "link to itself": (lambda: tar(header(b"p-1/l.rs", kind=b"2", target=b"l.rs")), "link"),
    "link of endless length": (lambda: tar(pax(linkpath="../" * 5000), header(b"p-1/l.rs", kind=b"2")), "link"),
    "link by long link": (lambda: tar(long_name(b"/" * 300, b"K"), header(b"p-1/l.rs", kind=b"2")), "link"),
    "link with content": (lambda: tar(header(b"p-1/l.rs", kind=b"2", target=b"x", size=512)), "link"),
    "hard link to passwd": (lambda: tar(header(b"p-1/h.rs", kind=b"1", target=b"/etc/passwd")), "link"),
    "hard link to a member": (lambda: tar(header(b"p-1/h.rs", kind=b"1", target=b"p-1/good.rs")), "link"),
    "folder through a link": (
        lambda: tar(header(b"p-1/d", kind=b"2", target=b"/tmp"), member(b"p-1/d/evil.rs")), "link"),
    "fifo": (lambda: tar(header(b"p-1/f.rs", kind=b"6")), "fifo"),
    "block device": (lambda: tar(header(b"p-1/b.rs", kind=b"4")), "device"),
    "character device": (lambda: tar(header(b"p-1/c.rs", kind=b"3")), "device"),
    "sparse by GNU": (lambda: tar(header(b"p-1/s.rs", kind=b"S")), "sparse"),
    "sparse by pax": (lambda: tar(pax(GNU__sparse__major="1"), member(b"p-1/s.rs")), "sparse"),
    "unknown kind": (lambda: tar(header(b"p-1/u.rs", kind=b"Z")), "unknown"),
    "volume header": (lambda: tar(header(b"p-1/v.rs", kind=b"V")), "unknown"),
    "oversize": (lambda: tar(member(b"p-1/big.rs", b"/" * (4 * MIB + 1))), "size"),
    "oversize by pax": (lambda: tar(pax(size=str(5 * MIB)), header(b"p-1/b.rs") + b"\0" * 5 * MIB), "size"),
    "duplicate": (lambda: tar(member(b"p-1/a.rs"), member(b"p-1/a.rs", b"fn evil() {}\n")), "duplicate"),
    "duplicate of the good one": (lambda: tar(member(b"p-1/good.rs", b"fn evil() {}\n")), "duplicate"),
    "duplicate by dot": (lambda: tar(member(b"./p-1/good.rs", b"fn evil() {}\n")), "duplicate"),
    "case collision": (lambda: tar(member(b"p-1/GOOD.rs", b"fn evil() {}\n")), "case"),
    "case collision of folders": (lambda: tar(member(b"P-1/a.rs")), "case"),
    "Unicode form collision": (
        lambda: tar(member("p-1/é.rs".encode()), member("p-1/e\u0301.rs".encode())), "form"),
    "sharp s collision": (lambda: tar(member("p-1/ß.rs".encode()), member(b"p-1/ss.rs")), "case"),
    "file then folder": (lambda: tar(member(b"p-1/a.rs"), member(b"p-1/a.rs/b.rs")), "duplicate"),
    "folder then file": (lambda: tar(member(b"p-1/d.rs/b.rs"), member(b"p-1/d.rs")), "duplicate"),
    "newline in a name": (lambda: tar(member(b"p-1/a\nb.rs")), "control"),
    "escape in a name": (lambda: tar(member(b"p-1/\x1b[2Jb.rs")), "control"),
    "delete in a name": (lambda: tar(member(b"p-1/\x7f.rs")), "control"),
    "bidirectional override": (lambda: tar(member("p-1/\u202esr.rs".encode())), "control"),
    "zero width": (lambda: tar(member("p-1/go\u200bod.rs".encode())), "control"),
    "null in a pax name": (lambda: tar(pax(path="p-1/a\0.rs"), member(b"x")), "control"),
    "not UTF-8": (lambda: tar(member(b"p-1/\xff\xfe.rs")), "name"),
    "device name": (lambda: tar(member(b"p-1/aux.rs")), "name"),
    "device name in capitals": (lambda: tar(member(b"p-1/COM1.rs")), "name"),
    "trailing dot": (lambda: tar(member(b"p-1/a./x.rs")), "name"),
    "trailing blank": (lambda: tar(member(b"p-1/a /x.rs")), "name"),
    "option as a name": (lambda: tar(member(b"p-1/-rf.rs")), "name"),
    "home as a name": (lambda: tar(member(b"~/x.rs")), "name"),
    "empty component": (lambda: tar(member(b"p-1//x.rs")), "name"),
    "dot component": (lambda: tar(member(b"p-1/./x.rs")), "name"),
    "empty name": (lambda: tar(member(b"")), "name"),
    "long component": (lambda: tar(long_name(b"p-1/" + b"a" * 300 + b".rs"), member(b"x")), "name"),
    "long path": (lambda: tar(long_name(b"a/" * 600 + b"x.rs"), member(b"x")), "name"),
    "deep path": (lambda: tar(long_name(b"a/" * 60 + b"x.rs"), member(b"x")), "depth"),
    "Git folder": (lambda: tar(member(b"p-1/.git/hooks.rs")), "git"),
    "Git folder in capitals": (lambda: tar(member(b"p-1/.GIT/hooks.rs")), "git"),
    "set-user-id file": (lambda: tar(member(b"../suid.rs", mode=b"0006755\0")), "parent"),
    "zip: parent": (lambda: zipped(b"../evil.rs"), "parent"),
    "zip: absolute": (lambda: zipped(b"/tmp/evil.rs"), "absolute"),
    "zip: backslash": (lambda: zipped(b"p-1\\..\\evil.rs"), "name"),
    "zip: link": (lambda: zipped(data=b"/etc/passwd", mode=0o120777), "link"),
    "zip: device": (lambda: zipped(mode=0o020666), "device"),
    "zip: fifo": (lambda: zipped(mode=0o010666), "fifo"),
    "zip: encrypted": (lambda: zipped(flags=1), "encrypted"),
    "zip: other compression": (lambda: zipped(method=99, data=b"x" * 40), "compression"),
    "zip: duplicate": (lambda: zipped(b"p-1/good.rs"), "duplicate"),
    "zip: case collision": (lambda: zipped(b"p-1/Good.rs"), "case"),
    "zip: oversize": (lambda: zipped(data=b"//" * 3 * MIB, method=8), "size"),
}  # fmt: skip

# The archive is refused as a whole: nothing of it is kept.
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip bomb": (lambda: gz(bomb_tar(40 * MIB)), "bomb"),
    "bzip2 bomb": (lambda: bz2.compress(bomb_tar(40 * MIB)), "bomb"),
    "xz bomb": (lambda: lzma.compress(bomb_tar(40 * MIB)), "bomb"),
    "gzip of many streams": (lambda: gzip_streams(100), "bomb"),
    "xz that asks for memory": (
        greedy_xz, "bomb"),
    "too many members": (lambda: tar(many_members(50_001)), "count"),
    "too many hostile members": (lambda: tar(b"".join([header(b"../x", kind=b"2")] * 50_001)), "count"),
    "wanted files without end": (lambda: gz(tar(member(b"p-1/z.rs", b"\0" * 4 * MIB) * 1, bomb_tar(40 * MIB))), "bomb"),
    "negative size": (lambda: tar(header(b"p-1/n.rs", size_field=b"\xff" * 12)), "corrupt"),
    "huge binary size": (lambda: tar(header(b"p-1/n.rs", size_field=b"\x80" + b"\x7f" * 11)), "truncated"),
    "size that is no number": (lambda: tar(header(b"p-1/n.rs", size_field=b"99999999999\0")), "corrupt"),
    "size beyond the end": (lambda: tar()[:-1024] + header(b"p-1/n.rs", size=10 * MIB), "truncated"),
    "wrong checksum": (lambda: tar(header(b"p-1/n.rs", checksum=b"000000\0 ")), "corrupt"),
    "cut in a header": (lambda: tar()[:1024] + b"p-1/x.rs", "truncated"),
    "gzip cut short": (lambda: gz(tar(member(b"p-1/r.rs", os.urandom(4096))))[:-600], "truncated"),
    "gzip damaged": (lambda: gz(tar(member(b"p-1/r.rs", os.urandom(4096))))[:-4] + b"\0\0\0\0", "corrupt"),
    "xz damaged": (lambda: lzma.compress(tar(member(b"p-1/r.rs", os.urandom(4096))))[:200] + b"\0" * 500, "corrupt"),
    "pax header of a gigabyte": (lambda: tar(header(b"pax", size=1 << 30, kind=b"x")), "header"),
    "long name of a gigabyte": (lambda: tar(header(b"x", size=1 << 30, kind=b"L")), "header"),
    "endless pax headers": (lambda: tar(pax(comment="x") * 100, member(b"p-1/x.rs")), "header"),
    "global pax path": (lambda: tar(pax(b"g", path="p-1/all.rs"), member(b"p-1/x.rs")), "header"),
    "pax with a lying length": (lambda: tar(header(b"pax", size=12, kind=b"x") + padded(b"99 path=x.rs\n")), "corrupt"),
    "pax without a length": (lambda: tar(header(b"pax", size=9, kind=b"x") + padded(b"path=x.rs")), "corrupt"),
    "pax size that is no number": (lambda: tar(pax(size="-5"), member(b"p-1/x.rs")), "corrupt"),
    "no archive": (lambda: b"<html>not found</html>" * 100, "corrupt"),
    "empty file with a name": (lambda: b"x", "truncated"),
    "zip: bomb": (lambda: zipped(data=b"\0" * 40 * MIB, method=8, size=3 * MIB, crc=1), "bomb"),
    "zip: overlap": (deflated_overlap, "bomb"),
    "zip: says too many": (lambda: zip_ended(count=0xFFFF), "format"),
    "zip: directory elsewhere": (lambda: zip_ended(at=7), "corrupt"),
    "zip: directory of a gigabyte": (lambda: zip_ended(length=1 << 30), "corrupt"),
    "zip: second disk": (lambda: zip_ended(disk=1), "corrupt"),
    "zip: member outside": (lambda: zipped(offset=0x7FFFFFFF), "corrupt"),
    "zip: two names": (lambda: zipped(two_names=1), "corrupt"),
    "zip: wrong checksum": (lambda: zipped(crc=1), "corrupt"),
    "zip: member cut short": (lambda: zipped(data=os.urandom(2000), method=8, packed=5000), "corrupt"),
    "zip: no directory": (lambda: zipped()[:60] + b"PK", "corrupt"),
}  # fmt: skip


def unpack(data: bytes, tmp_path: Path) -> tuple[object, Path, float]:
    archive, into = tmp_path / "archive", tmp_path / "into"
    archive.write_bytes(data)
    into.mkdir()
    start_s = time.process_time()
    done = extract(archive, into, wanted=WANTED)
    return done, into, time.process_time() - start_s


def everything_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


@pytest.mark.parametrize("name", MEMBERS)
def test_a_hostile_member_is_left_out_and_the_rest_is_kept(
    name: str, tmp_path: Path, slowness: float, file_mode: int
) -> None:
    build, rule = MEMBERS[name]
    done, into, cpu_s = unpack(build(), tmp_path)
    assert done.whole
    assert rule in [refusal.rule for refusal in done.refusals]
    assert (into / "p-1" / "good.rs").read_bytes() == GOOD
    assert b"evil" not in b"".join(path.read_bytes() for path in everything_below(into))
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in everything_below(into))
    assert all(path.lstat().st_mode & 0o7777 == file_mode for path in everything_below(into))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "into"]
    assert all(refusal.path.isprintable() and refusal.detail.isprintable() for refusal in done.refusals)
    assert cpu_s < 1.0 * slowness


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_leaves_nothing_behind(name: str, tmp_path: Path, slowness: float) -> None:
    build, rule = ARCHIVES[name]
    done, into, cpu_s = unpack(build(), tmp_path)
    assert not done.whole
    assert done.files == ()
    assert done.refusals[-1].rule == rule
    assert done.refusals[-1].detail
    assert everything_below(into) == []
    assert cpu_s < 1.0 * slowness


def test_at_least_a_hundred_archives_are_tried() -> None:
    assert len(MEMBERS) + len(ARCHIVES) >= 100


@pytest.mark.parametrize("name", ["gzip bomb", "bzip2 bomb", "xz bomb", "too many hostile members", "zip: bomb"])
def test_a_bomb_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    archive, into = tmp_path / "archive", tmp_path / "into"
    archive.write_bytes(ARCHIVES[name][0]())
    into.mkdir()
    code = (
        "import resource, sys; from pathlib import Path; from workbench.fetch.extractor import extract\n"
        "done = extract(Path(sys.argv[1]), Path(sys.argv[2]), wanted=('*.rs',))\n"
        "print(done.whole, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    # A child's peak begins at its parent's, so a small shell stands between.
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, str(archive), str(into)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    whole, peak = done.stdout.split()
    assert whole == "False"
    assert int(peak) < 256 * MIB


def test_an_unwanted_member_is_no_refusal(tmp_path: Path) -> None:
    done, _, _ = unpack(tar(member(b"p-1/readme.md"), header(b"p-1/empty/", kind=b"5")), tmp_path)
    assert done.files == ("p-1/good.rs",)
    assert done.refusals == ()


@pytest.mark.parametrize("pack", [bytes, gz, bz2.compress, lzma.compress], ids=["plain", "gzip", "bzip2", "xz"])
def test_every_compression_gives_the_same_files(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = b"// " + bytes(range(32, 127)) * 4000 + b"\n"
    done, into, _ = unpack(pack(tar(member(b"p-1/src/lib.rs", content), member(b"p-1/empty.rs", b""))), tmp_path)
    assert done.files == ("p-1/empty.rs", "p-1/good.rs", "p-1/src/lib.rs")
    assert (into / "p-1/src/lib.rs").read_bytes() == content
    assert done.refusals == ()


def test_a_zip_by_the_standard_library_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p-1/src/lib.rs", b"fn a() {}\n" * 5000)
        archive.writestr("p-1/é.rs", b"fn b() {}\n")
        archive.writestr("p-1/empty.rs", b"")
    done, into, _ = unpack(buffer.getvalue(), tmp_path)
    assert done.files == ("p-1/empty.rs", "p-1/src/lib.rs", "p-1/é.rs")
    assert (into / "p-1/src/lib.rs").read_bytes() == b"fn a() {}\n" * 5000


def test_long_names_of_both_dialects_are_read(tmp_path: Path) -> None:
    path = "p-1/" + "d" * 90 + "/" + "e" * 90 + ".rs"
    gnu, into, _ = unpack(tar(long_name(path.encode()), member(b"x")), tmp_path)
    assert path in gnu.files
    assert (into / path).is_file()


def test_refusals_are_counted_beyond_a_bound(tmp_path: Path) -> None:
    done, _, _ = unpack(tar(*[header(b"../x", kind=b"2")] * 1500), tmp_path)
    assert len(done.refusals) == 1001
    assert done.refusals[-1].rule == "more"
    assert "500" in done.refusals[-1].detail


def test_a_link_that_stands_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    archive, into, outside = tmp_path / "a", tmp_path / "into", tmp_path / "outside"
    archive.write_bytes(tar())
    into.mkdir()
    outside.mkdir()
    (into / "p-1").symlink_to(outside)
    with pytest.raises(OSError, match=r"directory|links"):
        extract(archive, into, wanted=WANTED)
    assert list(outside.iterdir()) == []
