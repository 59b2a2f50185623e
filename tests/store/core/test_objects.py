"""The Objects port, over every adapter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ids import EMPTY_TREE, ObjectId
from workbench.store.git.encoding import trailers_of
from workbench.store.git.objects import MAX_DEPTH, ObjectStore
from workbench.store.memory.repository import MemoryDatabase, MemoryRepository

NOWHERE = ObjectId("1234567890" * 4)


def test_a_blob_comes_back_and_has_the_id_that_git_gives(repository):
    id = repository.objects.add_blob(b"hello\n")
    assert id == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert repository.objects.read_blob(id) == b"hello\n"
    assert repository.objects.kind(id) == "blob"
    assert repository.objects.exists(id)


def test_what_is_not_there_is_named_and_nothing_else_breaks(repository):
    objects = repository.objects
    assert not objects.exists(NOWHERE)
    for ask in (objects.read_blob, objects.kind, objects.commit, objects.peel, objects.list):
        with pytest.raises(NotFound, match=NOWHERE):
            ask(NOWHERE)
    assert objects.read_blob(objects.add_blob(b"still alive")) == b"still alive"


def test_a_tree_is_made_changed_and_emptied_by_path(repository):
    objects = repository.objects
    first = objects.add_tree(None, {"a/b/c": b"1", "a.txt": b"2", "z": b"3"})
    assert [entry.path for entry in objects.walk(first)] == ["a.txt", "a/b/c", "z"]
    second = objects.add_tree(first, {"a/b/c": None, "a/b/d": b"4", "z": objects.add_blob(b"5"), "nothing/here": None})
    assert {e.path: objects.read_blob(e.id) for e in objects.walk(second)} == {"a.txt": b"2", "a/b/d": b"4", "z": b"5"}
    assert objects.add_tree(second, {"a.txt": None, "a": None, "z": None}) == EMPTY_TREE
    assert list(objects.walk(EMPTY_TREE)) == []


def test_the_order_in_a_tree_is_gits_where_a_folder_sorts_as_if_it_ended_in_a_slash(repository):
    tree = repository.objects.add_tree(None, {"a-b": b"", "a.b": b"", "a/x": b"", "a0": b""})
    assert [entry.path for entry in repository.objects.list(tree)] == ["a-b", "a.b", "a", "a0"]


def test_a_whole_tree_can_be_put_below_a_path(repository):
    objects = repository.objects
    payload = objects.add_tree(None, {"x/y": b"1"})
    tree = objects.add_tree(None, {"payload": payload, "manifest.json": b"{}"})
    assert objects.read_file(tree, "payload/x/y") == b"1"
    assert objects.entry(tree, "payload").id == payload
    assert objects.entry(tree, "payload/x/y/z") is None
    assert [entry.path for entry in objects.walk(tree, "payload")] == ["x/y"]
    with pytest.raises(NotFound):
        objects.read_file(tree, "payload/x")
    with pytest.raises(NotFound):
        objects.list(tree, "manifest.json")


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/./b", ".git/hooks", "a\0b", "a/"])
def test_a_path_that_would_leave_the_tree_is_refused(repository, path):
    with pytest.raises(UserError, match="not a path"):
        repository.objects.add_tree(None, {path: b""})


def test_a_file_and_something_below_it_cannot_both_be_set(repository):
    with pytest.raises(UserError):
        repository.objects.add_tree(None, {"a": b"", "a/b": b""})


def test_a_commit_keeps_people_time_message_and_trailers(repository):
    objects = repository.objects
    commit = objects.add_commit(
        EMPTY_TREE if objects.exists(EMPTY_TREE) else objects.add_tree(None, {}),
        parents=[],
        message="train: a model\n\nmore words",
        who="Ada <ada@example.org>",
        time_ms=1_700_000_000_999,
        trailers=[("Input", "dataset/rust/v1.0.0 " + NOWHERE), ("Run", "x")],
    )
    info = objects.commit(commit)
    assert (info.author, info.time_s, info.parents) == ("Ada <ada@example.org>", 1_700_000_000, ())
    assert info.trailers == (("Input", "dataset/rust/v1.0.0 " + NOWHERE), ("Run", "x"))
    assert info.message.startswith("train: a model\n\nmore words\n\nInput: ")


def test_the_same_commit_made_twice_is_one_object_in_every_adapter(repository, commits, tmp_path):
    assert commits(repository, 3) == commits(repository, 3) == commits(MemoryRepository(tmp_path), 3)


def test_a_name_that_would_break_a_commit_is_made_harmless(repository):
    objects = repository.objects
    tree = objects.add_tree(None, {"a": b""})
    who = "Eve <eve@x>\ncommitter Mallory <m@x> 0 +0000"
    info = objects.commit(objects.add_commit(tree, parents=[], message="m", who=who, time_ms=0))
    assert "\n" not in info.author
    assert info.time_s == 0


def test_a_tag_peels_to_its_commit_and_its_tree_can_be_read(repository, commits):
    objects = repository.objects
    commit = commits(repository, 1)[0]
    tag = objects.add_tag("v1.0.0", commit, message="first", who="Ada", time_ms=5000)
    tag_of_tag = objects.add_tag("again", tag, message="second", who="Ada", time_ms=5000)
    assert objects.kind(tag) == "tag"
    assert objects.peel(tag_of_tag) == objects.peel(tag) == objects.peel(commit) == commit
    assert objects.read_file(tag_of_tag, "file") == b"0\n"
    with pytest.raises(UserError, match="blob"):
        objects.peel(objects.add_blob(b"x"))


def test_history_follows_first_parents_newest_first(repository):
    objects = repository.objects
    tree = objects.add_tree(None, {"a": b""})
    parents: list[ObjectId] = []
    for number in range(5):
        parents = [objects.add_commit(tree, parents=parents, message=str(number), who="a", time_ms=number)]
    assert [c.message for c in objects.history(parents[0], 3)] == ["4\n", "3\n", "2\n"]
    assert len(objects.history(parents[0])) == 5


def test_a_big_blob_is_streamed_in_pieces(repository):
    data = bytes(range(256)) * 20_000
    id = repository.objects.add_blob(data)
    pieces: list[bytes] = []
    assert repository.objects.stream_blob(id, pieces.append) == len(data)
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20


def test_a_reader_that_stops_in_the_middle_of_a_stream_harms_nobody(repository):
    id = repository.objects.add_blob(b"x" * 3_000_000)

    def stop(piece: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.objects.stream_blob(id, stop)
    assert repository.objects.read_blob(repository.objects.add_blob(b"next")) == b"next"


def test_a_bomb_of_ten_billion_paths_in_eleven_objects_is_refused_at_once(repository):
    objects = repository.objects
    tree = objects.add_tree(None, {"f": b"boom"})
    for _ in range(10):
        tree = objects.add_tree(None, {f"d{i}": tree for i in range(10)})
    with pytest.raises(Refused, match="paths"):
        objects.measure(tree)


def test_a_tree_of_five_thousand_folders_one_in_the_other_is_refused_without_recursion(repository):
    objects = repository.objects
    tree = objects.add_tree(None, {"f": b"deep"})
    for _ in range(5000 if isinstance(repository, MemoryRepository) else 200):
        tree = objects.add_tree(None, {"d": tree})
    with pytest.raises(Refused, match=str(MAX_DEPTH)):
        objects.measure(tree)
    with pytest.raises(Refused, match=str(MAX_DEPTH)):
        list(objects.walk(tree))


def test_an_ordinary_tree_is_measured_with_shared_folders_counted_each_time(repository):
    objects = repository.objects
    shared = objects.add_tree(None, {"x": b"", "y": b""})
    tree = objects.add_tree(None, {"one": shared, "two": shared, "file": b""})
    assert objects.measure(tree) == (7, 2)


PART = st.text("ab.-_0é", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(PART, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(PATHS, st.binary(max_size=8), max_size=12), st.dictionaries(PATHS, st.none(), max_size=6))
@settings(max_examples=150)
def test_a_tree_holds_what_was_put_in_less_what_was_taken_out(files, removals):
    objects = ObjectStore(MemoryDatabase())
    files = {p: d for p, d in files.items() if not any(p != q and (q + "/").startswith(p + "/") for q in files)}
    removals = {p: None for p in removals if not any(p != q and (q + "/").startswith(p + "/") for q in removals)}
    tree = objects.add_tree(objects.add_tree(None, files), removals)
    gone = {p for p in files if any((p + "/").startswith(r + "/") for r in removals)}
    assert {e.path: objects.read_blob(e.id) for e in objects.walk(tree)} == {
        p: d for p, d in files.items() if p not in gone
    }


@pytest.mark.parametrize(
    ("message", "trailers"),
    [
        ("subject\n", ()),
        ("Input: not a trailer, the subject\n", ()),
        ("subject\n\nA: 1\nB-c: 2: 3\n", (("A", "1"), ("B-c", "2: 3"))),
        ("subject\n\nA: 1\nwords\n", ()),
        ("subject\n\nA: 1\n\nend\n", ()),
    ],
)
def test_trailers_are_the_last_paragraph_when_it_holds_nothing_else(message, trailers):
    assert trailers_of(message) == trailers
