"""GDAL as this room calls it: with options that keep it to one file, and heard.

Every error, and every warning that means lost pixels, becomes an `UnreadableSourceError` that
names the file.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geostore.errors import InvalidInputError, UnreadableSourceError

__all__ = ["block_cache_of", "read_checked"]

# Readers run bands in parallel threads, so GDAL's own threads would only compete. EMPTY_DIR
# hides .aux.xml, .ovr, .msk and world files, and keeps GDAL from listing directories.
# The curl setting leaves no file name that GDAL's network file systems would agree to open.
_GDAL_OPTIONS: dict[str, str] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_NUM_THREADS": "1",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_PAM_ENABLED": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
}

# Codec libraries (libjpeg, OpenJPEG, libtiff) report some lost pixels only as warnings.
_LOST_PIXELS = re.compile(
    r"premature|truncat|corrupt|inconsisten|too short|not enough|end of|does not end with"
    r"|extraneous|incomplete|missing|fail|error|invalid|unexpected|cannot|bad ",
    re.IGNORECASE,
)

MESSAGE_CHARACTERS_MAX = 500
"""Of GDAL's own words: some quote what they found in the file."""

_RASTERIO_LOGGERS = ("rasterio._err", "rasterio._env")
_captured = threading.local()


class _GdalMessages(logging.Filter):
    """Takes GDAL's messages out of the log while this thread reads through us."""

    def filter(self, record: logging.LogRecord) -> bool:
        sink: list[str] | None = getattr(_captured, "messages", None)
        if sink is None:
            # Not ours: pass it on exactly when the application's own levels would.
            return logging.getLogger("rasterio").isEnabledFor(record.levelno)
        if record.levelno >= logging.WARNING:
            sink.append(record.getMessage())
        return False


@functools.cache
def _listen_to_gdal() -> None:
    """GDAL warnings reach Python only as log records of rasterio: hear them at any level."""
    for name in _RASTERIO_LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(_GdalMessages())
        if logger.level == logging.NOTSET or logger.level > logging.WARNING:
            logger.setLevel(logging.WARNING)
    _listen_to_bytes()


def _listen_to_bytes() -> None:
    """Messages that quote a damaged file's bytes: rasterio fails to decode them where it cannot
    raise, so that Python would print two tracebacks and the message be lost.
    """
    print_exception, print_unraisable = sys.excepthook, sys.unraisablehook

    def exception(
        kind: type[BaseException], value: BaseException, trace: TracebackType | None
    ) -> None:
        if not _heard(value):
            print_exception(kind, value, trace)

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if not _heard(what.exc_value):
            print_unraisable(what)

    sys.excepthook, sys.unraisablehook = exception, unraisable


def _heard(error: BaseException | None) -> bool:
    """Whether it is a message to this thread while it reads through us, which it is added to."""
    sink: list[str] | None = getattr(_captured, "messages", None)
    if sink is None or not isinstance(error, UnicodeDecodeError):
        return False
    sink.append(error.object.decode("latin-1"))
    return True


def _root_message(error: BaseException) -> str:
    """The innermost cause's text: rasterio says only "see previous exception"."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().rstrip(".") or type(error).__name__
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"


@contextmanager
def read_checked(name: str, doing: str) -> Iterator[None]:
    """Run GDAL calls so that any error, and any warning of lost pixels, is raised.

    `name` is the file as the user knows it, `doing` completes "cannot ...". Thread-safe.

    Raises:
        UnreadableSourceError: naming the file, with GDAL's innermost message.
    """
    _listen_to_gdal()
    messages: list[str] = []
    outer: list[str] | None = getattr(_captured, "messages", None)
    _captured.messages = messages
    try:
        with rasterio.Env(**_GDAL_OPTIONS):
            yield
    except UnicodeEncodeError as error:
        raise UnreadableSourceError(
            f"{name}: cannot {doing}: expected a path in UTF-8, which GDAL needs; rename it"
        ) from error
    except (RasterioError, CPLE_BaseError, OSError, ValueError, SystemError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise UnreadableSourceError(f"{name}: cannot {doing}: {_root_message(error)}") from error
    finally:
        _captured.messages = outer
    lost = next((message for message in messages if _LOST_PIXELS.search(message)), None)
    if lost is not None:
        raise UnreadableSourceError(f"{name}: cannot {doing}: {lost.strip()}")


@contextmanager
def block_cache_of(size_bytes: int) -> Iterator[None]:
    """Bound GDAL's cache of decoded blocks, which all files of the process share; the bound
    that was there comes back at the end. Not for use by several threads at once.

    Raises:
        InvalidInputError: not positive.
    """
    if size_bytes <= 0:
        raise InvalidInputError(f"block cache of {size_bytes} bytes: expected a positive size")
    from rasterio._env import get_gdal_config, set_gdal_config

    # Not an Env around each read: that would put the old limit back, and flush, every time.
    before = get_gdal_config("GDAL_CACHEMAX")
    set_gdal_config("GDAL_CACHEMAX", size_bytes)
    try:
        yield
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)
