"""A workspace's own stage runs in the sandbox, and may do more only where its definition stands on main."""

from __future__ import annotations

import json
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from workbench.domain.errors import Refused, ToolMissing, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.stage import Needs
from workbench.pipeline.definition import load, parse
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.records import log_path
from workbench.pipeline.walk import check_rights, run_pipeline
from workbench.sandbox.bubblewrap import Bubblewrap

BEGIN = "import json, os, socket, sys, time\nsys.path.insert(0, 'tools')\nfrom steps import begin, end\n"
JINJA = 'libraries = ["jinja2"]'
BODY = "step, output = begin()\n(output / 'words.txt').write_text('a')\n"


def _words(toy, body: str, needs: str = "") -> None:
    toy.edit({"tools/words.py": BEGIN + BODY + body + "\nend(output)\n"})
    if needs:
        toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', f'makes = "raw"\n{needs}')


def _log(toy, record) -> str:
    return (toy.repository.runs.read(record.id, log_path("words")) or b"").decode()


REACHED = {
    "the hub": "os.listdir({hub!r})",
    "the home of whoever runs it": "os.listdir(os.path.expanduser('~root')) if os.path.exists('/root') else 1 / 0",
    "the host's temporary folder": "os.stat({secret!r})",
    "a variable of whoever runs it": "os.environ['WORKBENCH_SECRET']",
    "a server of this machine": "socket.create_connection(('127.0.0.1', {port}), 1)",
    "a process of this machine": "os.kill({pid}, 0)",
    "the workbench": "__import__('workbench')",
    "its own code": "open('tools/words.py', 'a')",
    "its own step": "open(sys.argv[-1], 'a')",
    "another's folder": "os.listdir('/out/../in/../..{secret}')",
}


@pytest.mark.parametrize("what", REACHED)
def test_a_stage_does_not_reach(toy, what: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORKBENCH_SECRET", "s3cret")
    (tmp_path / "secret").write_text("s")
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempt = REACHED[what].format(
            hub=str(toy.repository.path), secret=str(tmp_path), port=server.getsockname()[1], pid=os.getpid()
        )
        _words(toy, f"try: {attempt}\nexcept Exception as error: print('stopped', type(error).__name__)\nelse: 1 / 0")
        record = toy.run()
    assert record.error == ""
    assert "stopped" in _log(toy, record)


def test_a_stage_reads_its_inputs_code_and_parameters_and_has_a_place_to_write(toy) -> None:
    look = (
        "print(os.getcwd(), step['output'], step['scratch'], os.environ['TMPDIR'], sorted(os.listdir('tools')))\n"
        "open(os.path.join(step['scratch'], 'x'), 'w').write('x'); print(os.environ['PYTHONHASHSEED'])"
    )
    _words(toy, look)
    record = toy.run()
    assert record.error == ""
    assert _log(toy, record).splitlines() == [
        "/in/code /out/output /out/scratch /out/scratch ['steps.py', 'words.py']",
        "0",
    ]


def test_its_python_is_ours_and_has_the_libraries_that_it_names_with_what_they_require(toy) -> None:
    _words(toy, "import sys; print(sys.version); import jinja2, markupsafe; print(jinja2.__version__)", JINJA)
    record = toy.run()
    assert record.error == ""
    assert _log(toy, record).splitlines() == [*sys.version.splitlines(), version("jinja2")]
    _words(toy, "import jinja2")
    toy.replace("ci/pipelines/toy.toml", JINJA, "")
    assert "No module named 'jinja2'" in toy.run().error


def test_what_it_declares_is_granted_and_said(toy, gates: Path) -> None:
    (gates / "read").mkdir()
    (gates / "read" / "a").write_text("given")
    (gates / "read" / "private").write_text("nobody's business")
    (gates / "read" / "private").chmod(0o600)
    (gates / "write").mkdir()
    (gates / "write").chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        use = (
            f"print(open('{gates}/read/a').read()); open('{gates}/write/b', 'w').write('left')\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5)\n"
            f"try: open('{gates}/read/c', 'w')\nexcept OSError as error: print(error.strerror)"
        )
        needs = f'needs = {{read = ["{gates}/read"], write = ["{gates}/write"], network = true, memory_mb = 2048}}'
        _words(toy, use, needs)
        told = (
            f"beyond the sandbox it uses the network, reads {gates}/read, writes {gates}/write, "
            "takes up to 2048 MiB of memory"
        )
        assert toy.planner.plan().step("words").notes == (told,)
        record = toy.run()
    assert record.error == ""
    assert told in record.step("words").why
    assert _log(toy, record).splitlines() == ["given", "Read-only file system"]
    assert (gates / "write" / "b").read_text() == "left"


def test_what_it_reaches_is_part_of_its_action_and_how_long_it_may_take_is_not(toy, gates: Path) -> None:
    toy.run()
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\nneeds.time_s = 99')
    assert not toy.planner.plan().runs
    toy.replace("ci/pipelines/toy.toml", "needs.time_s = 99", f'needs.read = ["{gates}"]')
    assert toy.planner.why("words").reason.changes == ("code",)


def _on_a_branch(toy, needs: str) -> Planner:
    """The planner of a commit that is not on main, whose first stage needs more."""
    objects, path = toy.repository.objects, "ci/pipelines/toy.toml"
    text = objects.read_file(toy.commit, path).decode().replace('makes = "raw"', f'makes = "raw"\n{needs}')
    tree = objects.add_tree(objects.commit(toy.commit).tree, {path: text.encode()})
    aside = objects.add_commit(tree, parents=[toy.commit], message="aside\n", who="T <t@example.com>", time_ms=1)
    return Planner(toy.repository, load(objects, ObjectId(aside), "toy", ()), ObjectId(aside))


def test_more_than_the_sandbox_counts_on_main_alone(toy) -> None:
    planner = _on_a_branch(toy, "needs.network = true")
    with pytest.raises(Refused, match=r"stage words uses the network, and the commit .* is not on main") as caught:
        run_pipeline(planner, Mode(), toy.settings(), clock=toy.clock, trigger="test")
    assert "git push hub" in caught.value.hint
    with pytest.raises(Refused, match="is not on main"):
        check_rights(planner, planner.plan())
    assert toy.repository.runs.list() == [], "nothing was begun"


def test_a_program_of_the_hubs_user_is_lent_on_main_alone(toy, gates: Path, monkeypatch) -> None:
    """It may hold what is nobody's business."""
    (gates / "hello").write_text("#!/bin/sh\necho hello\n")
    (gates / "hello").chmod(0o755)
    monkeypatch.setenv("PATH", f"{gates}:{os.environ['PATH']}")
    planner = _on_a_branch(toy, 'tools = ["hello"]')
    with pytest.raises(Refused, match="stage words uses the program hello, and the commit"):
        run_pipeline(planner, Mode(), toy.settings(), clock=toy.clock, trigger="test")
    _words(toy, "os.system('hello')", 'tools = ["hello", "cat"]')
    record = toy.run()
    assert record.error == ""
    assert record.step("words").why == "never ran; beyond the sandbox it uses the program hello"
    assert "hello" in _log(toy, record)


def test_a_commit_that_main_has_left_behind_may_still_do_what_it_declares(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\nneeds.network = true')
    planner = toy.planner
    toy.edit({"README.md": "later"})
    assert run_pipeline(planner, Mode(), toy.settings(), clock=toy.clock, trigger="test").error == ""


def test_no_stage_writes_into_the_hub(toy) -> None:
    for place in (toy.repository.path, toy.repository.path.parent, toy.repository.path / "refs"):
        toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', f'makes = "raw"\nneeds.write = ["{place}"]')
        with pytest.raises(Refused, match="would write into the hub"):
            toy.run()
        toy.replace("ci/pipelines/toy.toml", f'\nneeds.write = ["{place}"]', "")


def test_without_a_sandbox_it_is_refused_with_the_command_that_installs_one(toy) -> None:
    class Missing(Bubblewrap):
        def probe(self) -> str:
            return "bubblewrap is not installed; run: sudo apt-get install -y bubblewrap"

    record = toy.run(how=toy.settings(sandbox=Missing))
    assert "stage words is the workspace's own: it runs in a sandbox, and there is none" in record.error
    assert "sudo apt-get install -y bubblewrap" in record.error


LIMITS = {
    "time": ("time.sleep(60)", "needs.time_s = 1", "words took longer than 1 s", "time_s = 2"),
    "memory": (
        "kept = []\nfor n in range(8):\n    if os.fork() == 0: x = bytearray(40 << 20); time.sleep(60)\ntime.sleep(60)",
        "needs.memory_mb = 160",
        "words took more than 160 MiB of memory",
        "memory_mb = 320",
    ),
    "disk": (
        "for n in range(40): open(output / str(n), 'wb').write(os.urandom(1 << 20))\nos.sync(); time.sleep(60)",
        "needs.disk_mb = 8",
        "words wrote more than 8 MiB",
        "disk_mb = 16",
    ),
}


@pytest.mark.parametrize("of", LIMITS)
def test_a_stage_is_ended_at_its_limit_and_told_how_to_have_more(toy, of: str) -> None:
    body, needs, told, declare = LIMITS[of]
    _words(toy, body, needs)
    error = toy.run().error
    assert told in error
    assert f"[stages.needs] {declare}" in error


WRONG = {
    "an unknown need": ("needs.netwrok = true", "unknown key 'netwrok'"),
    "a network that is text": ('needs.network = "yes"', "network is 'yes'"),
    "a relative place": ('needs.read = ["data"]', "'data' is no place of a machine"),
    "the whole machine": ('needs.write = ["/"]', "'/' is no place of a machine"),
    "a place above": ('needs.read = ["/a/../etc"]', "is no place of a machine"),
    "a place of the sandbox": ('needs.read = ["/proc/1"]', "/proc/1 is a place that the sandbox has of its own"),
    "no time": ("needs.time_s = 0", "time_s is 0"),
    "time without end": ("needs.time_s = 99999999", "write at most"),
    "a memory that is true": ("needs.memory_mb = true", "memory_mb is True"),
}


@pytest.mark.parametrize("what", WRONG)
def test_needs_are_checked_to_the_last_key(what: str) -> None:
    needs, told = WRONG[what]
    text = f'format = 1\nname = "a"\nuse = []\n[[stages]]\nname = "x"\ncommand = ["x"]\n{needs}\n'
    with pytest.raises(UserError) as caught:
        parse(text.encode(), "ci/pipelines/a.toml", ())
    assert told in f"{caught.value}"


def test_needs_are_read_from_a_table_of_their_own() -> None:
    text = 'format = 1\nuse = []\n[[stages]]\nname = "x"\ncommand = ["x"]\n[stages.needs]\nnetwork = true\ntime_s = 5\n'
    (use,) = parse(text.encode(), "ci/pipelines/a.toml", ()).stages
    assert use.spec.needs == Needs(network=True, time_s=5)
    assert use.spec.needs.describe() == "uses the network, takes up to 5 s"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the sandbox a user of its own")
@pytest.mark.parametrize("need", ["read", "write"])
def test_a_place_that_its_user_cannot_use_is_named(toy, tmp_path: Path, need: str) -> None:
    place = tmp_path / "private"
    place.mkdir(mode=0o700)
    _words(toy, "", f'needs.{need} = ["{place}"]')
    error = toy.run().error
    assert f"{place} cannot be" in error
    assert "chmod o+r" in error


def test_a_program_that_is_missing_is_told_with_how_to_name_it(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", '["python", "tools/words.py"]', '["nosuchprogram"]')
    record = toy.run()
    assert 'tools = ["nosuchprogram"]' in record.error
    assert ToolMissing.__name__ not in json.dumps(record.error)
