"""Stages that misbehave: nothing half is published, and the record says what was wrong and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.pipeline.records import log_path

BEGIN = "import json, os, sys\nsys.path.insert(0, 'tools')\nfrom steps import begin, end\nstep, output = begin()\n"

CASES = {
    "ends with a code": ("print('boom', file=sys.stderr); sys.exit(3)", "words ended with exit code 3: boom"),
    "is killed": ("os.kill(os.getpid(), 9)", "words was killed by signal 9"),
    "leaves nothing": ("end(output)", "words left no files"),
    "has no result": ("(output / 'a').write_text('x')", "words ended without a result"),
    "writes no JSON": (
        "(output / 'a').write_text('x'); (output.parent / 'result.json').write_text('{')",
        "result.json of words cannot be read",
    ),
    "counts with NaN": ("(output / 'a').write_text('x'); end(output, {'n': float('nan')})", "NaN is not JSON"),
    "counts with text": ("(output / 'a').write_text('x'); end(output, {'n': 'many'})", "counts are not whole numbers"),
    "an unknown format": ("(output / 'a').write_text('x'); end(output, format=7)", "its format is not 1"),
    "leaves a link": ("os.symlink('/etc/passwd', output / 'a'); end(output)", "words left a, which is a link"),
    "leaves a folder link": ("os.symlink('/etc', output / 'a'); end(output)", "words left a, which is a link"),
    "leaves a pipe": ("os.mkfifo(output / 'a'); end(output)", "words left a, which is neither a file nor a folder"),
    "a name with a newline": ("(output / 'a\\nb').write_text('x'); end(output)", "bytes that are not text"),
    "a name that is no text": ("open(bytes(output) + b'/\\xff', 'w'); end(output)", "bytes that are not text"),
    "a folder for a result": (
        "(output / 'a').write_text('x'); os.mkdir(output.parent / 'result.json')",
        "without a result",
    ),
    "tells its error": (
        "(output.parent / 'error.json').write_text(json.dumps({'what': 'no words', 'hint': 'give some'})); sys.exit(2)",
        "words failed: no words\n  give some",
    ),
    "garbage for an error": (
        "(output.parent / 'error.json').write_bytes(b'\\x00['); sys.exit(2)",
        "ended with exit code 2",
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


def test_what_a_stage_leaves_running_is_ended_with_it(toy) -> None:
    leave = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nend(output, {'pid': child.pid})\n"
    toy.edit({"tools/words.py": BEGIN + "(output / 'words.txt').write_text('a')\n" + leave})
    assert toy.run().error == ""
    pid = toy.artifact("raw/toy/v1.0.0").manifest.counts["pid"]
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return
    assert state == "Z"  # ended, and whoever adopted it has not looked yet


def test_a_command_that_does_not_exist_names_itself(toy) -> None:
    toy.replace("ci/pipelines/toy.toml", '["python", "tools/words.py"]', '["no-such-program-here"]')
    record = toy.run()
    assert "there is no program 'no-such-program-here'" in record.error


def test_code_that_is_not_committed_is_named_before_anything_runs(toy) -> None:
    from workbench.domain.errors import UserError

    toy.replace("ci/pipelines/toy.toml", '"tools/words.py", "tools/steps.py"', '"tools/wrods.py"')
    with pytest.raises(UserError, match=r"code path 'tools/wrods\.py' is not in"):
        toy.planner.plan()


def test_a_stage_cannot_change_its_inputs_for_others(toy) -> None:
    toy.replace(
        "tools/count.py",
        "words = (raw",
        "(raw / 'words.txt').chmod(0o644)\n(raw / 'words.txt').write_text('z')\nwords = (raw",
    )
    toy.run()
    record = toy.run(type(toy.planner.plan().mode)(force=True))
    assert toy.read(record.step("words").artifact, "words.txt") == "a\na\nb\nc"
