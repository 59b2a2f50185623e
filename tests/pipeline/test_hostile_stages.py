"""Stages that misbehave: nothing half is published, and the record says what was wrong and what to do."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from workbench.domain.errors import StageFailed, UserError
from workbench.pipeline import output, watch
from workbench.pipeline.leftovers import end_strays
from workbench.pipeline.plan import Mode
from workbench.pipeline.records import log_path
from workbench.system.trees import remove_tree

BEGIN = "import json, os, sys\nsys.path.insert(0, 'tools')\nfrom steps import begin, end\nstep, output = begin()\n"

CASES = {
    "ends with a code": ("print('boom', file=sys.stderr); sys.exit(3)", "words ended with exit code 3: boom"),
    "is killed": ("os.kill(os.getpid(), 9)", "words was ended (SIGKILL)"),
    "leaves nothing": ("end(output)", "words left no files"),
    "has no result": ("(output / 'a').write_text('x')", "words ended without a result"),
    "writes no JSON": (
        "(output / 'a').write_text('x'); (output.parent / 'result.json').write_text('{')",
        "result.json of words cannot be read",
    ),
    "counts with NaN": ("(output / 'a').write_text('x'); end(output, {'n': float('nan')})", "NaN is not JSON"),
    "counts with text": (
        "(output / 'a').write_text('x'); end(output, {'n': 'many'})",
        "counts.n: 'many' is not a whole number",
    ),
    "an unknown format": (
        "(output / 'a').write_text('x'); end(output, format=7)",
        "has format 7; this workbench reads format 1",
    ),
    "leaves a link": ("os.symlink('/etc/passwd', output / 'a'); end(output)", "words left a, which is a link"),
    "leaves a folder link": ("os.symlink('/etc', output / 'a'); end(output)", "words left a, which is a link"),
    "leaves a socket": (
        "import socket; socket.socket(socket.AF_UNIX).bind(str(output / 'a')); end(output)",
        "words left a, which is neither a file nor a folder",
    ),
    "a name with a newline": ("(output / 'a\\nb').write_text('x'); end(output)", "bytes that are not text"),
    "a name that is no text": ("open(bytes(output) + b'/\\xff', 'w'); end(output)", "bytes that are not text"),
    "a folder for a result": (
        "(output / 'a').write_text('x'); os.mkdir(output.parent / 'result.json')",
        "without a result",
    ),
    "a socket for a result": (
        "(output / 'a').write_text('x'); import socket; "
        "socket.socket(socket.AF_UNIX).bind(str(output.parent / 'result.json'))",
        "without a result",
    ),
    "a link for a result": (
        "(output / 'a').write_text('x'); os.symlink('/proc/self/environ', output.parent / 'result.json')",
        "without a result",
    ),
    "a socket for an error": (
        "import socket; socket.socket(socket.AF_UNIX).bind(str(output.parent / 'error.json')); sys.exit(3)",
        "ended with exit code 3",
    ),
    "a link for its output": (
        "os.rmdir(output); (output.parent / 'o').mkdir(); (output.parent / 'o' / 'a').touch(); end(output); "
        "os.symlink('o', output)",
        "put something else in the place of its output folder",
    ),
    "a file for its output": (
        "os.rmdir(output); output.write_text('x'); end(output)",
        "put something else in the place of its output folder",
    ),
    "no output folder": ("os.rmdir(output); end(output)", "put something else in the place of its output folder"),
    "tells its error": (
        "(output.parent / 'error.json').write_text(json.dumps({'what': 'no words', 'hint': 'give some'})); sys.exit(2)",
        "words failed: no words\n  give some",
    ),
    "garbage for an error": (
        "(output.parent / 'error.json').write_bytes(b'\\x00['); sys.exit(2)",
        "ended with exit code 2",
    ),
    "measured without bound": (
        "(output / 'a').write_text('x'); (output.parent / 'result.json').write_text('{\"format\": 1, \"metrics\": "
        '{"n": 1e999}}\')',
        "result.json of words cannot be read",
    ),
    "measured half a character": (
        "(output / 'a').write_text('x'); end(output, {}, metrics={'half \\ud800': 1})",
        "result.json of words cannot be read",
    ),
    "measured too deep": (
        "(output / 'a').write_text('x'); end(output, {}, metrics=eval('{0:' * 90 + '1' + '}' * 90))",
        "values are nested deeper than 32",
    ),
    "nested folders without end": (
        "os.chdir(output)\nfor _ in range(1200): os.mkdir('d'); os.chdir('d')\nend(output)",
        "words left folders nested deeper than 48",
    ),
    "an error with a terminal's controls": (
        "print('\\x1b[2J\\x1b[31mboom\\x1b[0m', file=sys.stderr); sys.exit(3)",
        "words ended with exit code 3: boom",
    ),
    "a long error": (
        "(output.parent / 'error.json').write_text(json.dumps({'what': 'x' * (1 << 20)})); sys.exit(2)",
        "words failed: xxx",
    ),
    "a checkpoint that is no path": (
        "print(json.dumps({'event': 'checkpoint', 'folder': 'a\\0b'}), flush=True); sys.stdin.readline()",
        "words offered a checkpoint outside its own folders",
    ),
    "a checkpoint that nobody announced": (
        "print(json.dumps({'event': 'checkpoint', 'folder': step['scratch']}), flush=True); sys.stdin.readline()",
        "words offered a checkpoint, and nothing says that it has any",
    ),
    "a checkpoint elsewhere": (
        "print(json.dumps({'event': 'checkpoint', 'folder': '/etc'}), flush=True); sys.stdin.readline()",
        "words offered a checkpoint outside its own folders",
    ),
}


@pytest.mark.parametrize(("body", "error"), CASES.values(), ids=CASES.keys())
def test_a_stage_that_misbehaves_fails_its_run_and_publishes_nothing(toy, body: str, error: str) -> None:
    toy.edit({"tools/words.py": BEGIN + body})
    before = {ref: id for ref, id in toy.refs().items() if "/runs/" not in ref}
    record = toy.run()
    assert record.state == "failed"
    assert toy.states(record) == {"words": "failed", "count": "skipped"}
    assert error in record.error
    assert error in record.step("words").error
    assert len(record.error) < 5000
    assert record.error.replace("\n", "").isprintable()
    assert {ref: id for ref, id in toy.refs().items() if "/runs/" not in ref} == before
    assert not (toy.repository.path / "workbench" / "steps" / record.id).exists()


def test_a_stage_that_prints_a_lot_is_listened_to_within_bounds(toy) -> None:
    flood = "line = b'x' * (1 << 20)\nfor _ in range(64): os.write(1, line); os.write(2, line + b'\\n')\n"
    toy.edit({"tools/words.py": BEGIN + flood + "(output / 'words.txt').write_text('a'); end(output)"})
    record = toy.run()
    assert record.error == ""
    log = toy.repository.runs.read(record.id, log_path("words"))
    assert len(log) < 5 << 20
    assert b"(cut)" in log


@pytest.mark.long
def test_a_gigabyte_of_output_is_listened_to_within_bounds(toy) -> None:
    flood = "line = b'x' * 99 + b'\\n'\nfor _ in range(10240): os.write(1, line * 1024)\n"
    toy.edit({"tools/words.py": BEGIN + flood + "(output / 'words.txt').write_text('a'); end(output)"})
    record = toy.run()
    assert record.error == ""
    assert b"more lines dropped" in toy.repository.runs.read(record.id, log_path("words"))


LEFT = {
    "beside it": "subprocess.Popen(['sleep', '{mark}'])",
    "in a session of its own": "subprocess.Popen(['sleep', '{mark}'], start_new_session=True)",
    "as a daemon that holds the pipes": (
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.execvp('sleep', ['sleep', '{mark}'])\n"
        "os.wait()"
    ),
}


@pytest.mark.parametrize("how", LEFT)
@pytest.mark.parametrize("ending", ["well", "badly"])
def test_what_a_stage_leaves_running_is_ended_with_it(toy, how: str, ending: str) -> None:
    mark = f"600.{os.getpid()}"
    leave = f"import subprocess\n{LEFT[how].format(mark=mark)}\n"
    last = "(output / 'words.txt').write_text('a')\nend(output)\n" if ending == "well" else "sys.exit(4)\n"
    toy.edit({"tools/words.py": BEGIN + leave + last})
    error = toy.run().error
    assert error.startswith("words ended with exit code 4\n  the whole log: ") if ending == "badly" else not error
    assert not [each for each in psutil.process_iter(["cmdline"]) if mark in (each.info["cmdline"] or [])]


def test_a_process_of_nobodys_step_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], "TMPDIR": f"{tmp_path}/a"}) as other:
        end_strays(f"{tmp_path}")
        end_strays("")
        assert other.poll() is None
        end_strays(f"{tmp_path}/a")
        assert other.wait() == -9


def test_a_stage_that_reads_its_standard_input_meets_its_end(toy) -> None:
    toy.edit({"tools/words.py": BEGIN + "(output / 'words.txt').write_text('a' + sys.stdin.read())\nend(output)\n"})
    assert toy.run().error == ""
    assert toy.read("raw/toy/v1.0.0", "words.txt") == "a"


SAID = {
    "brackets": "'[' * 60000",
    "no number": '\'{"event": "progress", "done": 1e999, "rates": {"x": NaN}}\'',
    "a number beyond all bounds": "'{\"event\": \"progress\", \"done\": 1' + '0' * 400 + '}'",
    "half a character": '\'{"event": "progress", "done": 1, "unit": "\\\\ud800", "rates": {"\\\\ud800": 1}}\'',
    "half a character in a line": '\'{"event": "log", "text": "\\\\ud800"}\'',
    "a thousand rates": "json.dumps({'event': 'progress', 'done': 1, 'rates': {f'r{n}': n for n in range(1000)}})",
    "a long unit": "json.dumps({'event': 'progress', 'done': -1, 'total': -5, 'unit': 'x' * 60000})",
    "controls": "'\\x1b[2J\\x1b]0;title\\x07\\x07\\r\\0'",
    "several lines in one": "json.dumps({'event': 'log', 'text': 'one\\ntwo'})",
}


@pytest.mark.parametrize("said", SAID)
def test_whatever_a_stage_prints_its_run_goes_on_and_is_told_in_plain_words(toy, said: str) -> None:
    body = f"os.write(1, ({SAID[said]}).encode() + b'\\n'); os.write(2, bytes(range(256)) + b'\\n')\n"
    toy.edit({"tools/words.py": BEGIN + body + "(output / 'words.txt').write_text('a'); end(output)"})
    plain, lines = io.StringIO(), io.StringIO()
    watcher = watch.Several((watch.PlainWatcher(plain, toy.clock.now_ms, every_ms=0), watch.JsonWatcher(lines)))
    record = toy.run(how=toy.settings(watcher=watcher))
    assert record.error == ""
    log = toy.repository.runs.read(record.id, log_path("words")).decode()
    for text in (plain.getvalue(), log):
        assert all(char in "\n\t" or char.isprintable() for char in text.replace("\xa0", "").replace("\xad", ""))
    assert all(json.loads(line) and len(line) < 70_000 for line in lines.getvalue().splitlines())
    assert len(record.step("words").rates) <= 8


def test_a_folder_is_removed_however_deep_and_read_only(tmp_path: Path) -> None:
    root = tmp_path / "left"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for number in range(1200):
        os.mkdir("d", dir_fd=here)
        os.mkdir("removed-0", dir_fd=here)
        os.close(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.symlink("/etc", "link", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.chmod(here, 0o500)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(root)
    assert not root.exists()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert (tmp_path / "kept").is_dir()


def test_more_folders_than_a_payload_may_hold_are_refused_without_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(output, "MAX_FILES", 100)
    for number in range(101):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(StageFailed, match="left more than 100 files and folders"):
        output.check_files(tmp_path, "words")


def test_a_command_that_does_not_exist_names_itself(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", '["python", "tools/words.py"]', '["no-such-program-here"]')
    record = toy.run()
    assert "there is no program 'no-such-program-here'" in record.error


def test_a_script_that_cannot_be_started_is_told_of_its_first_line(toy) -> None:
    toy.edit({"tools/words.sh": "no first line"})
    toy.replace("ci/pipelines/toy.toml", '["python", "tools/words.py"]', '["tools/words.sh"]')
    toy.replace("ci/pipelines/toy.toml", '"tools/words.py", "tools/steps.py"', '"tools/words.sh"')
    record = toy.run()
    assert "is not a program that the sandbox can start" in record.error
    assert "first line" in record.error


def test_a_script_that_the_command_names_is_code_of_it_or_refused_before_anything_runs(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", 'code = ["tools/words.py", "tools/steps.py"]\n', "")
    with pytest.raises(UserError, match=r"its command names tools/words\.py, which is not in its code") as caught:
        toy.planner.plan()
    assert 'code = ["tools/words.py"]' in caught.value.hint
    toy.replace("ci/pipelines/toy.toml", 'makes = "raw"', 'makes = "raw"\ncode = ["tools"]')
    assert toy.planner.plan().step("words").runs


def test_code_that_is_not_committed_is_named_before_anything_runs(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", '"tools/words.py", "tools/steps.py"', '"tools/wrods.py"')
    with pytest.raises(UserError, match=r"code path 'tools/wrods\.py' is not in"):
        toy.planner.plan()


SPOILT = {
    "writes into a file": "(raw / 'words.txt').chmod(0o644)\n(raw / 'words.txt').write_text('z')\n",
    "replaces a file": "os.chmod(raw, 0o755)\nos.unlink(raw / 'words.txt')\n(raw / 'words.txt').write_text('zzz')\n",
    "removes a file": "os.chmod(raw, 0o755)\nos.unlink(raw / 'words.txt')\n",
    "adds a file": "os.chmod(raw, 0o755)\n(raw / 'more.txt').write_text('z')\n",
    "adds a folder": "os.chmod(raw, 0o755)\n(raw / 'more').mkdir()\n",
    "puts a link": "os.chmod(raw, 0o755)\nos.unlink(raw / 'words.txt')\nos.symlink('/etc/passwd', raw / 'words.txt')\n",
    "removes all": "import shutil\nos.chmod(raw.resolve(), 0o755)\nshutil.rmtree(raw.resolve())\n",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_stage_cannot_change_its_inputs(toy, how: str) -> None:
    script = toy.repository.objects.read_file(toy.commit, "tools/count.py").decode()
    toy.replace("tools/count.py", 'words = (raw / "words.txt")', f'import os\n{SPOILT[how]}words = (raw / "words.txt")')
    first = toy.run()
    assert "Read-only file system" in first.error
    toy.edit({"tools/count.py": script})
    again = toy.run(Mode(only="count"))
    assert again.error == ""
    assert toy.read(first.step("words").artifact, "words.txt") == "a\na\nb\nc"
    assert toy.artifact(again.step("count").artifact).manifest.counts == {"distinct": 3}


# --- native code that crashes -----------------------------------------------------------------------------------------

NULL = "import ctypes\nprint('weights loaded', flush=True)\ndef crashing():\n    ctypes.string_at(0)\ncrashing()\n"


def test_a_native_crash_is_told_with_its_place_its_input_and_the_log_before_it(toy) -> None:
    toy.replace("tools/count.py", "words = ", NULL + "words = ")
    record = toy.run()
    assert toy.states(record) == {"words": "succeeded", "count": "failed"}
    first, *rest = record.step("count").error.splitlines()
    assert first.startswith("native code at ctypes/__init__.py:")
    assert first.endswith(" in count crashed (SIGSEGV) on raw/toy/v1.0.0")
    assert rest[0] == "  | weights loaded"
    assert "Segmentation fault" in rest[1]
    assert "  the command of this stage, or a library that it uses, is at fault" in rest
    assert any("in crashing" in line for line in rest)
    assert rest[-1] == f"  the whole log: workbench runs tail {record.id}"
    assert b"Segmentation fault" in (toy.repository.runs.read(record.id, log_path("count")) or b"")


def test_a_stage_at_its_limit_of_memory_is_not_called_broken(toy) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\nbytearray(1 << 34)\n"
    toy.edit({"tools/words.py": BEGIN + limit})
    record = toy.run()
    assert record.error.startswith("words ran out of memory\n  free some memory")


def test_a_failed_step_tells_the_end_of_its_log_and_the_command_that_shows_all_of_it(toy) -> None:
    body = "for number in range(40): print(f'line {number}')\nprint('boom', file=sys.stderr); sys.exit(3)"
    toy.edit({"tools/words.py": BEGIN + body})
    record = toy.run()
    told = record.step("words").error.splitlines()
    assert told[0] == "words ended with exit code 3: boom"
    assert "  | line 39" in told
    assert "  | line 20" not in told
    assert told[-1].split(": ")[1] == f"workbench runs tail {record.id}"
    assert "line 39" not in record.error, "the run says it in short"
