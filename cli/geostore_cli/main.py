"""`geostore`: the group of commands, and how every run ends.

Exit codes: 0 everything asked for happened, 1 something failed (named on stderr), 2 wrong
usage, 130 interrupted, 141 the reader of our output went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from geostore.errors import GeostoreError, InvalidInputError, UnreadableSourceError
from geostore_cli import (
    cluster,
    coverage,
    dataset,
    demo,
    export,
    ingest,
    node,
    query,
    ring,
    status,
    verify,
)
from geostore_cli.session import Group, Session, add_shared_options, message

__all__ = ["cli", "main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class GeostoreGroup(Group):
    """A group whose errors are one line on stderr and whose exit codes are the contract's."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:  # noqa: ARG002 - click's own entry
        session = Session()
        extra.update(standalone_mode=False, obj=session, prog_name="geostore")
        sys.exit(run(lambda: super(GeostoreGroup, self).main(args, **extra), session))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. What click would end the run for by itself is passed on instead."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, BrokenPipeError) as error:
            raise _Stopped from error


class _Stopped(Exception):  # noqa: N818 - no error: the user or the reader of our output left
    """Carries what stopped the run, as its cause, past click's own handling of it."""


def run(call: Callable[[], Any], session: Session) -> int:
    """The exit code of `call`, its errors reported."""
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text: its odd bytes come out as \udcff, which JSON reads back.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = call()
        sys.stdout.flush()
    except _Stopped as stopped:
        return _ended_by(stopped.__cause__ or stopped, session)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every end is reported here
        return _ended_by(error, session)
    finally:
        session.stop_logging()
    return code if isinstance(code, int) else 0


def _ended_by(error: BaseException, session: Session) -> int:
    """Reports what ended the run; the exit code."""
    if isinstance(error, BrokenPipeError):
        # `geostore query | head`: nobody is left to tell. Python would complain once more
        # when it flushes at exit, so what it flushes goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    if session.verbosity >= 2 and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | EOFError | click.Abort):
        message("interrupted: nothing unfinished is visible; the same command can be run again")
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_USAGE
    if isinstance(error, click.UsageError):
        see = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        message(f"error: {error.format_message().rstrip('.')}{see}")
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        message(f"error: {error.format_message()}")
        return error.exit_code
    if isinstance(error, GeostoreError):
        message(f"error: {error}")
        usage = isinstance(error, InvalidInputError)
        return EXIT_USAGE if usage and not isinstance(error, UnreadableSourceError) else EXIT_FAILED
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        message(f"error: {error.strerror or error}{where}")
        return EXIT_FAILED
    message(
        f"error: {type(error).__name__}: {error} (a bug in geostore: please report it with the"
        " output of the same command with -vv)"
    )
    return EXIT_FAILED


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import geostore

        click.echo(f"geostore {geostore.__version__}")
        ctx.exit()


@click.group(cls=GeostoreGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Satellite scenes in, tensors out.

    A store keeps scenes as tiles: one geocode cell each, warped to one lattice, compressed,
    with validity masks and cloud cover. Ask for a place, months, little cloud, full coverage.

    `geostore demo` shows it on imagery that comes with the package.
    """


add_shared_options(cli)
for _command in (
    demo.demo,
    dataset.dataset,
    ingest.ingest,
    query.query,
    coverage.coverage,
    export.export,
    node.node,
    cluster.cluster,
    status.status,
    ring.ring,
    verify.verify,
):
    cli.add_command(_command)


def main() -> NoReturn:
    """The `geostore` script."""
    # What gRPC's core writes to stderr by itself comes back as errors with words of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    cli.main()
