"""The walk of a two-stage pipeline of commands: run, publish, reuse, and why."""

from __future__ import annotations



def test_a_first_run_publishes_every_artifact_with_its_lineage(toy) -> None:
    record = toy.run()
    assert record.error == ""
    assert toy.states(record) == {"words": "succeeded", "count": "succeeded"}
    assert toy.read("dataset/toy/v1.0.0", "counts.txt") == "a 2\nb 1\nc 1\n"
    made = toy.artifact("dataset/toy/v1.0.0")
    assert [short for short, _ in made.inputs] == ["raw/toy/v1.0.0"]
    assert made.source == toy.commit
    assert made.run == record.id
    assert made.manifest.counts == {"distinct": 3}
    assert toy.fsck() == ""


def test_a_second_run_reuses_everything_and_says_why(toy) -> None:
    toy.run()
    record = toy.run()
    assert toy.states(record) == {"words": "reused", "count": "reused"}
    assert record.step("count").why == "nothing changed: dataset/toy/v1.0.0"
