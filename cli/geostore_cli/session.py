"""What one run of the command line knows: which store, how talkative, which format.

The options that every command takes (`--store`, `--config`, `-v`, `-q`) write here, whether
they stand before or after the command's name; the last one wins.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from geostore.errors import NotFoundError, StoreFormatError

if TYPE_CHECKING:
    from geostore.api import Store
    from geostore.config import Settings

__all__ = [
    "Group",
    "Session",
    "add_shared_options",
    "command",
    "group",
    "message",
    "pass_session",
    "shows_colours",
]


MESSAGE_CHARACTERS_MAX = 1200


def shows_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours to somebody who wants them."""
    is_refused = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not is_refused


def message(text: str) -> None:
    """One line on stderr, after the program's name.

    Control characters, which a file's or scene's name may carry into an error message, are
    shown escaped: they must not move the cursor or fake a second line.
    """
    text = re.sub(r":\s*\n\s*", ": ", text.strip())
    text = re.sub(r"\s*\n\s*", "; ", text)
    if len(text) > MESSAGE_CHARACTERS_MAX:  # somebody's name or path of thousands
        text = f"{text[: MESSAGE_CHARACTERS_MAX // 2]} … {text[-MESSAGE_CHARACTERS_MAX // 3 :]}"
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    kind, colon, rest = text.partition(": ")
    colours = {"error": "red", "warning": "yellow"}
    if colon and kind in colours and shows_colours(sys.stderr):
        text = click.style(f"{kind}:", fg=colours[kind], bold=True) + f" {rest}"
    click.echo(f"geostore: {text}", err=True)


class _Messages(logging.Handler):
    """Log records as messages, so that the library's warnings look like our own."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            whose = "" if record.name.startswith("geostore") else f"{record.name}: "
            message(f"{record.levelname.lower()}: {whose}{record.getMessage()}")
        except Exception:  # noqa: BLE001 - logging's own contract: a bad record must not end the run
            self.handleError(record)


@dataclass
class Session:
    """One run. `settings` is read at first use, when all options have been seen."""

    store: str | None = None
    config: str | None = None
    format: str | None = None
    workers: int | None = None
    memory_bytes: str | None = None
    cache: str | None = None
    cache_bytes: str | None = None
    verbosity: int = 0
    """-1 quiet, 0, 1 informative, 2 everything."""
    _stop_logging: Callable[[], None] | None = None

    @cached_property
    def settings(self) -> Settings:
        """Flags over `GEOSTORE_*` variables over the TOML file."""
        from geostore.config import load_settings

        flags = {
            "store": self.store,
            "format": self.format,
            "workers": self.workers,
            "memory_bytes": self.memory_bytes,
            "cache": self.cache,
            "cache_bytes": self.cache_bytes,
        }
        return load_settings(flags, environment=os.environ, config_file=self.config)

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0

    def note(self, text: str) -> None:
        """A message that `-q` silences."""
        if not self.quiet:
            message(text)

    def start_logging(self, handler: logging.Handler | None = None) -> None:
        """Sends geostore's log (and with -vv everybody's) to stderr, or where `handler` does."""
        self.stop_logging()
        levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
        logger = logging.getLogger("geostore" if self.verbosity < 2 else None)
        handler = handler or _Messages()
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(levels[max(-1, min(self.verbosity, 2))])
        logger.propagate = False
        # GDAL's and Python's own warnings concern us, not the user, until -vv asks for them.
        silent = logging.NullHandler()
        logging.getLogger("py.warnings").addHandler(silent)
        logging.captureWarnings(capture=True)

        def stop() -> None:
            logging.captureWarnings(capture=False)
            logging.getLogger("py.warnings").removeHandler(silent)
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]

        self._stop_logging = stop

    def stop_logging(self) -> None:
        """Leaves logging as it was: a run may be part of a longer program, as in tests."""
        stop, self._stop_logging = self._stop_logging, None
        if stop is not None:
            stop()

    def open_store(self, *, mode: Literal["a", "r"] = "r") -> Store:
        """The store that the settings name; `mode` "r" needs one that is there, "a" makes it."""
        from geostore.api import open as open_store

        self.start_logging()
        settings = self.settings
        try:
            return open_store(
                settings.store,
                mode=mode,
                tls_ca=settings.tls_ca,
                tls_cert=settings.tls_cert,
                tls_key=settings.tls_key,
                insecure=settings.insecure or None,
            )
        except (NotFoundError, StoreFormatError) as error:
            hint = _hint(str(settings.store))
            if hint is None:
                raise
            raise type(error)(f"{error}; {hint}") from error

    @contextmanager
    def open_for_planning(self) -> Iterator[Store]:
        """The store to read; where there is none an empty one elsewhere, gone afterwards."""
        try:
            store = self.open_store()
        except NotFoundError:
            with TemporaryDirectory(prefix="geostore-plan-") as directory:
                self.store = directory
                del self.settings
                with self.open_store(mode="a") as store:
                    yield store
        else:
            with store:
                yield store

    def listing_format(self, given: str | None, *, default_pipe: str = "jsonl") -> str:
        """How a listing is written: as asked, else a table for eyes and lines for programs."""
        chosen = given or self.settings.format
        return chosen or ("table" if sys.stdout.isatty() else default_pipe)


def _hint(store: str) -> str | None:
    """What somebody may have meant who named a directory that is no store."""
    if re.fullmatch(r"[^/\s]+:[0-9]+", store):
        return f"a cluster's is geostore://{store}"
    if Path(store, "cluster.json").is_file():
        return (
            f"it has a cluster's nodes: geostore cluster up --dir {quote(store)} tells its TARGET"
        )
    return None


pass_session = click.make_pass_decorator(Session, ensure=True)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Writes a shared option into the session; one that was not given leaves it as it is."""
    session = ctx.ensure_object(Session)
    if value is None or value == 0:
        return
    if param.name == "verbose":
        session.verbosity += value
    elif param.name == "quiet":
        session.verbosity = -1
    else:
        setattr(session, param.name or "", value)


def _shared_options() -> list[click.Option]:
    return [
        click.Option(
            ["--store"],
            metavar="TARGET",
            expose_value=False,
            callback=_keep,
            help=(
                "A directory, or geostore://host:port[,host:port...]. Default: $GEOSTORE_STORE,"
                " else ./geostore-data."
            ),
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            expose_value=False,
            callback=_keep,
            help=(
                "A TOML file of settings (store, workers, memory_bytes, cache, cache_bytes, format;"
                " for a cluster"
                " tls_cert, tls_key, tls_ca, insecure)."
            ),
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_keep,
            help="Say more; -vv also shows tracebacks.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_keep,
            help="Errors only.",
        ),
    ]


def add_shared_options(target: click.Command) -> click.Command:
    """`target` with the options that every command takes, before its --help."""
    target.params.extend(_shared_options())
    return target


class Group(click.Group):
    """A group that lists its commands in the order of use, and knows a misspelt one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begins with; a misspelt one is told its neighbours."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            near = get_close_matches(args[0], known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(known)}"
            ctx.fail(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)


def command(
    *args: Any, parent: click.Group | None = None, **kwargs: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with the shared options, added to `parent`."""

    def decorate(function: Any) -> click.Command:
        made = add_shared_options(click.command(*args, **kwargs)(function))
        if parent is not None:
            parent.add_command(made)
        return made

    return decorate


def group(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """`click.group` whose commands, like itself, take the shared options."""

    def decorate(function: Any) -> click.Group:
        made: click.Group = click.group(*args, cls=Group, **kwargs)(function)
        add_shared_options(made)
        return made

    return decorate
