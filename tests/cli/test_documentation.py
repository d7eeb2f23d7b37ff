"""docs/cli.md says every command and option that there is, and no other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from geostore_cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHARED = {"--store", "--config", "--verbose", "--quiet", "--help", "-v", "-q", "-h", "--version"}


def walk(group: click.Group, *names: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += walk(command, *names, name)
        else:
            found.append((" ".join((*names, name)), command))
    return found


COMMANDS = walk(cli)


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match, f"docs/cli.md has no section {title!r}"
    return match[1]


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    } - SHARED


def said_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


@pytest.mark.parametrize(("title", "command"), COMMANDS, ids=[title for title, _ in COMMANDS])
def test_every_option_is_on_the_page(title: str, command: click.Command) -> None:
    text = section(title)
    said = said_in(text)
    if "(#predicates)" in text:
        said |= said_in(section("Predicates"))
    missing = options_of(command) - said
    assert not missing, f"docs/cli.md, {title}: {sorted(missing)} not mentioned"
    assert f"$ geostore {title}" in text, f"docs/cli.md, {title}: no example"


def test_shared_options_are_on_the_page() -> None:
    assert said_in(section("For every command")) >= {s for s in SHARED if s.startswith("--")}


def test_the_page_invents_nothing() -> None:
    known = set.union(*(options_of(command) for _, command in COMMANDS)) | SHARED
    assert said_in(PAGE) <= known
    titles = re.findall(r"^## ([a-z][a-z ]*)$", PAGE, re.MULTILINE)
    assert titles == [title for title, _ in COMMANDS]


def parse(words: list[str]) -> click.Context:
    """The context of the command that `words` name, with all values converted."""
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        name = words[0]
        assert name in command.commands, f"no such command: {name}"
        context = click.Context(command, parent=context, info_name=name)
        command, words = command.commands[name], words[1:]
    return command.make_context(command.name, list(words), parent=context)


def examples() -> list[list[str]]:
    """Every `$ geostore …` line of the page, as the words after `geostore`."""
    lines = re.findall(r"^\$ geostore (.+)$", PAGE, re.MULTILINE)
    return [shlex.split(line.split(" > ")[0].split(" | ")[0]) for line in lines]


@pytest.mark.parametrize("words", examples(), ids=" ".join)
def test_examples_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "field.geojson").write_text('{"type": "Point", "coordinates": [0, 0]}')
    (either,) = re.findall(r"^```json\n(.*?)^```", section("Predicates"), re.MULTILINE | re.DOTALL)
    (tmp_path / "either.json").write_text(either)
    context = parse(words)
    assert context.params or not [word for word in words if word.startswith("--")]
