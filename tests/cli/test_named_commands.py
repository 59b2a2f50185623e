"""Every ``workbench …`` that a hint, a help text, a page or a script of ours names is one that the command line has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from workbench.cli.commands import app
from workbench.domain import errors

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "workbench/**/*.md", "agents/**/*.md", "state/**/*.md", "ci/*", "hooks/*", "workbench/**/*.pl"]
# What stands before it says that a command is meant and not this program in a sentence ("a workbench that knows it").
COMMAND = re.compile(r"(?P<place>^ *|`|\[bold\]|: +|&& |\bshow )?\bworkbench +(?P<rest>[a-z-][^`\n]*)", re.MULTILINE)
END = re.compile(r"\[/bold\]| {2,}| #|\\n")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHERS = re.compile(r"\b(git|pip|ensurepip|pacman|cargo|sha256sum)\b")  # programs with options of their own
OF_GIT = {"--since"}  # said of a bundle that `git bundle create` made
ERRORS = {name for name, made in vars(errors).items() if isinstance(made, type) and issubclass(made, Exception)}
WORD = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


def texts() -> Iterator[tuple[str, str]]:
    """What people read: string literals, with X for what is filled in, pages and scripts."""
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for text in literals(ast.parse(path.read_text())):
            yield str(path.relative_to(ROOT)), text
    for pattern in PAGES:
        for path in sorted(found for found in ROOT.glob(pattern) if found.is_file()):
            yield str(path.relative_to(ROOT)), path.read_text()


def literals(tree: ast.AST) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        else:
            waiting += ast.iter_child_nodes(node)


def named(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The words after ``workbench``, and whether their place says that they are a command."""
    for found in COMMAND.finditer(text):
        words = []
        for word in WORD.findall(END.split(found["rest"])[0]):
            words.append(word.strip("[]().,;:"))
            if word[-1] in ".,;:)":
                break
        if words:
            yield found["place"] is not None, words


def wrong(words: list[str], *, meant: bool = True) -> str:
    """What the command line does not have of these words; empty when it has all. Where no command is ``meant``, a
    first word that is none is prose."""
    command: Any = typer.main.get_command(app)
    waiting = list(words)
    while commands := getattr(command, "commands", {}):
        if not waiting or waiting[0].startswith("-"):
            break
        name = waiting.pop(0)
        if name not in commands:
            return name if meant or command.name != "workbench" else ""
        command = commands[name]
    known = {"-h", "--help"} | {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options = [word.partition("=")[0] for word in waiting if re.match(r"--?[a-z]", word)]
    return next((option for option in options if option not in known), "")


def test_every_command_and_option_that_is_named_exists() -> None:
    checked, missing = 0, []
    for path, text in texts():
        for meant, words in named(text):
            checked += 1
            if lacking := wrong(words, meant=meant):
                missing.append(f"{path}: workbench {' '.join(words)}: there is no {lacking}")
    assert not missing, "\n".join(missing)
    assert checked > 150, "they are not found any more"


def test_every_option_that_a_hint_names_alone_is_one_of_some_command() -> None:
    known, missing = options(typer.main.get_command(app)) | OF_GIT, []
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for hint in hints(ast.parse(path.read_text())):
            if not OTHERS.search(hint):
                missing += [f"{path.name}: {name}" for name in OPTION.findall(hint) if name not in known]
    assert not missing, "\n".join(missing)


def hints(tree: ast.AST) -> Iterator[str]:
    """The second argument of each error that is made: what to do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            for hint in [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "hint")]:
                yield from literals(hint)


def options(command: Any) -> set[str]:
    own = {"--help"} | {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("crawl it: workbench run --stage crawl", "--stage"),
        ("see `workbench lgo`", "lgo"),
        ("see `workbench runs ls`", "ls"),
        ("Example: [bold]workbench pin release/rust --way x[/bold]", "--way"),
        ("  workbench versions --prot 1     over REST", "--prot"),
        ("made by a workbench that knows --more", ""),
        ("`workbench complete release/rust -p 'fn --x' --suffix '}'`", ""),
        ("`workbench --help` lists all; git -C x", ""),
        ("workbench runs tail X   follow it", ""),
    ],
)
def test_what_is_looked_for_is_found(text: str, lacking: str) -> None:
    ((meant, words),) = named(text)
    assert wrong(words, meant=meant) == lacking
