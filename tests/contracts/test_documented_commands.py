"""What the documents tell a reader to type is what the command takes: a renamed option fails here, not in a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from nowgraph.cli import app

ELLIPSES = {"...", "…"}
FOLDERS = ("docs", "examples", "deploy")


def lines_of_shell(page: str) -> Iterator[str]:
    """Lines of the blocks of shell, and of those that are only indented; continued ones are joined."""
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"^    (nowgraph .*)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)


def commands_of(page: str) -> list[list[str]]:
    """The words of each `nowgraph ...` of a page, without the program."""
    found = []
    for line in lines_of_shell(page):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words[:1] == ["nowgraph"]:
            found.append(words[1:])
    return found


def documents(repository: Path) -> list[Path]:
    """Every page of the repository."""
    return [*repository.glob("*.md"), *(path for name in FOLDERS for path in sorted((repository / name).rglob("*.md")))]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words begin with, and the words that are left for it."""
    command: Any = typer.main.get_group(app)
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            raise click.UsageError(f"no such command: {' '.join(words)}")
        command = command.commands[rest.pop(0)]
    return command, rest


def refusal(words: list[str]) -> str | None:
    """What the command would say to the words, if it would not run; what `...` stands for is not asked for."""
    try:
        command, rest = command_of(words)
        if not ELLIPSES & set(rest):
            command.make_context(command.name, rest)
            return None
    except Exception as error:  # Typer may bring a click of its own, whose errors are not click's
        if not isinstance(error, click.UsageError) and not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in options]
    return f"no such option: {', '.join(unknown)}" if unknown else None


def test_every_command_of_the_documents_would_run(repository: Path) -> None:
    """Each is one of ours, with options that it has and all that it must have; no file has to be there."""
    wrong, count = [], 0
    for path in documents(repository):
        for words in commands_of(path.read_text(encoding="utf-8")):
            count += 1
            if (said := refusal(words)) is not None:
                wrong.append((path.name, " ".join(words), said))
    assert count > 30
    assert wrong == []


def test_every_command_is_where_readers_look(repository: Path) -> None:
    """The README's table and the changelog name each of them, and no other."""
    group: Any = typer.main.get_group(app)
    commands = set(group.commands)
    rows = re.findall(r"^\| (`nowgraph .*?) \|", (repository / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word for row in rows for word in re.findall(r"`nowgraph ([a-z-]+)`?", row)} == commands
    listed = re.search(
        r"\*\*Command\*\*: `nowgraph ([^`]*)`", (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    )
    assert listed is not None
    assert set(re.split(r"[\s|]+", listed[1])) == commands


def test_options_take_no_pattern_that_the_shell_would_spread(repository: Path) -> None:
    """`--history *.parquet` gives the second file to nobody: a folder is named instead."""
    spread = [
        (path.name, words)
        for path in documents(repository)
        for words in commands_of(path.read_text(encoding="utf-8"))
        if any(before.startswith("-") and "*" in word and " " not in word for before, word in pairwise(words))
    ]
    assert spread == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nowgraph serv --checkpoint a", "serv"),
        ("nowgraph train --schema a --output b --budgt 3s", "--budgt"),
        ("nowgraph train --output b", "--schema"),
        ("nowgraph models canary fraud --shares 0.5", "--shares"),
        ("nowgraph serve ... --workes 2", "--workes"),
    ],
)
def test_a_mistake_would_be_found(line: str, says: str) -> None:
    """Of commands, options, what is missing, commands of commands, and beside what is left out."""
    (words,) = commands_of(f"```sh\n{line}  # why\n```\n")
    assert says in (refusal(words) or "")
