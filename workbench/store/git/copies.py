"""Whether every copy of every object is whole. git reads whichever copy of an object it finds first, so the damage of
another one (in a second pack, or loose beside a pack) shows only when that first one goes.

Packs are compared with their own checksum, at the speed of the disk, and damaged places told by the index; loose
objects are inflated and hashed. Not here: which objects a ref needs (``Repository.check``), and what they say
(``verify``).
"""

from __future__ import annotations

import hashlib
import shlex
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workbench.ports.store import Finding

MAX_NAMED = 20  # damaged copies that are named one by one, in each pack
_PIECE = 1 << 20
_HASH = 20
_LARGE = 1 << 31
_INDEXES = (
    *("pack/multi-pack-index", "pack/*.bitmap", "pack/*.rev", "pack/*.mtimes"),
    *("info/commit-graph", "info/commit-graphs/*.graph"),
)


def damaged_copies(git_dir: Path) -> Iterator[Finding]:
    """Each copy that is damaged, with the command that drops it; at last how much was looked at."""
    objects = git_dir / "objects"
    packs = sorted((objects / "pack").glob("pack-*.pack"))
    for pack in packs:
        with suppress(FileNotFoundError):  # repacked meanwhile
            yield from _in_pack(git_dir, pack)
    loose = sorted(objects.glob("[0-9a-f][0-9a-f]/*"))
    num = 0
    for path in loose:
        id = path.parent.name + path.name
        if len(id) != 2 * _HASH:
            continue
        with suppress(FileNotFoundError):
            num += 1
            if _loose_id(path) != id:
                fix = f"rm -f {shlex.quote(str(path))}     and verify again: if that was the only copy, it says so"
                yield Finding("error", f"the loose copy of object {id} is damaged", fix, {"object": id})
    yield Finding("ok", f"{len(packs)} packs and {num} loose objects were read: every copy of an object")


def damaged_indexes(git_dir: Path) -> Iterator[Finding]:
    """Files that git makes of the packs and can make again, whose checksum is not theirs. git itself believes a bitmap
    as it is, and then sends too little."""
    for pattern in _INDEXES:
        for path in sorted((git_dir / "objects").glob(pattern)):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # made anew meanwhile
                continue
            if hashlib.sha1(data[:-_HASH], usedforsecurity=False).digest() != data[-_HASH:]:
                fix = f"rm -f {shlex.quote(str(path))} && workbench gc --repo {shlex.quote(str(git_dir))}"
                yield Finding("error", f"{path.name} is damaged: what git looks up in it may be wrong", fix)


def _in_pack(git_dir: Path, pack: Path) -> Iterator[Finding]:
    index = pack.with_suffix(".idx").read_bytes()
    if hashlib.sha1(index[:-_HASH], usedforsecurity=False).digest() != index[-_HASH:]:
        name = shlex.quote(str(pack))
        fix = f"rm -f {shlex.quote(str(pack.with_suffix('.idx')))} && git index-pack {name}"
        yield Finding("error", f"the index of {pack.name} is damaged", fix)
        return
    checksum, trailer = _checksums(pack)
    if checksum == trailer == index[-2 * _HASH : -_HASH]:
        return
    fix = _dropping(git_dir, pack)
    damaged = [id for id, crc, data in _entries(pack, index) if _crc(pack, data) != crc]
    for id in damaged[:MAX_NAMED]:
        yield Finding("error", f"{pack.name}: its copy of object {id} is damaged", fix, {"object": id})
    if len(damaged) > MAX_NAMED:
        yield Finding("error", f"{pack.name}: {len(damaged) - MAX_NAMED} more copies are damaged", fix)
    if not damaged:
        yield Finding(
            "error", f"{pack.name} does not have the checksum that it says, though its objects are whole", fix
        )


def _dropping(git_dir: Path, pack: Path) -> str:
    """The commands that pack what is whole anew and drop this pack. They stop, with the pack still there, where an
    object has no whole copy: then it comes from a clone first (``verify`` says how)."""
    folder, keep = shlex.quote(str(pack.parent)), shlex.quote(str(pack.with_suffix(".keep")))
    place = shlex.quote(str(git_dir))
    return (
        f"rm -f {keep} {folder}/multi-pack-index* && "
        f"git --git-dir={place} -c core.bigFileThreshold=1g repack -a -d -q && workbench gc --repo {place}"
    )


def _checksums(pack: Path) -> tuple[bytes, bytes]:
    """The sha1 of all but the last 20 bytes, and those."""
    digest, left = hashlib.sha1(usedforsecurity=False), max(0, pack.stat().st_size - _HASH)
    with open(pack, "rb") as file:
        while left and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
        return digest.digest(), file.read(_HASH)


def _entries(pack: Path, index: bytes) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """Id, crc32 and place (from, to) of each object, by a version 2 index (gitformat-pack)."""
    if index[:8] != b"\xfftOc\x00\x00\x00\x02":
        return
    (num,) = struct.unpack_from(">I", index, 8 + 255 * 4)
    names, crcs = 8 + 256 * 4, 8 + 256 * 4 + num * _HASH
    small = struct.unpack_from(f">{num}I", index, crcs + num * 4)
    large = crcs + num * 8
    starts = [s if s < _LARGE else struct.unpack_from(">Q", index, large + (s - _LARGE) * 8)[0] for s in small]
    order = sorted(range(num), key=starts.__getitem__)
    ends = [*(starts[each] for each in order[1:]), pack.stat().st_size - _HASH]
    for number, end in zip(order, ends, strict=True):
        at = names + number * _HASH
        (crc,) = struct.unpack_from(">I", index, crcs + number * 4)
        yield index[at : at + _HASH].hex(), crc, (starts[number], end)


def _crc(pack: Path, place: tuple[int, int]) -> int:
    crc, (start, end) = 0, place
    with open(pack, "rb") as file:
        file.seek(start)
        left = end - start
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
    return crc


def _loose_id(path: Path) -> str:
    """The id that the bytes of a loose object have; empty where they cannot be inflated."""
    digest, inflate = hashlib.sha1(usedforsecurity=False), zlib.decompressobj()
    with open(path, "rb") as file:
        try:
            data = file.read(_PIECE)
            while data:
                digest.update(inflate.decompress(data, _PIECE))
                data = inflate.unconsumed_tail or file.read(_PIECE)
            digest.update(inflate.flush())
        except zlib.error:
            return ""
    return digest.hexdigest() if inflate.eof and not inflate.unused_data else ""
