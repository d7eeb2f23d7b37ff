"""Between gRPC and the handlers: admission, patience, errors, the log and the metrics.

One interceptor does it, because interceptors run in gRPC's polling thread, before a pool
is chosen. Handlers stay what gRPC calls them with: a message or an iterator of messages,
and a context; they raise geostore's errors and ask `current_call()` for the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import grpc

from geostore.errors import GeostoreError, InternalError, InvalidInputError
from geostore.metrics import (
    REGISTRY,
    SERVER_ANSWERED_REQUESTS,
    SERVER_RECEIVED_BYTES,
    SERVER_REQUEST_SECONDS,
    SERVER_SENT_BYTES,
)
from geostore.server.admission import Admission, InlinePool, Refusal
from geostore.server.call import Call, current_call, leave_call, serve_call, served_call
from geostore.server.call_log import log_call
from geostore.server.health import HEALTH_CLASSES
from geostore.server.limits import CallClass, ServerLimits
from geostore.server.streams import Requests, Responses, Watchdog

__all__ = ["DescribeError", "Dispatch", "FailedCall", "Handler", "RequestIdOf"]

_log = logging.getLogger("geostore.server")
_DETAILS_CHARS_MAX = 2000
"""Trailers share a client's metadata limit (8 kB unless told)."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
RequestIdOf = Callable[[Any], str | None]
Metadata = Sequence[tuple[str, str | bytes]]


class FailedCall(Protocol):
    """A geostore error as it crosses the wire."""

    @property
    def status(self) -> grpc.StatusCode: ...
    @property
    def message(self) -> str: ...
    @property
    def metadata(self) -> Metadata:
        """Trailing metadata: geostore's own code, `retry_after_s` and the like."""


DescribeError = Callable[[GeostoreError], FailedCall]


class Dispatch(grpc.ServerInterceptor):
    """Wraps every handler; see the module."""

    def __init__(
        self,
        classes: Mapping[str, CallClass],
        limits: ServerLimits,
        *,
        describe_error: DescribeError,
        request_id_of: RequestIdOf,
        watchdog: Watchdog,
    ) -> None:
        self.admission = Admission(limits.pools, after_call=self._end_call)
        self._classes = {**classes, **HEALTH_CLASSES}
        self._named = frozenset(classes)
        self._limits = limits
        self._describe_error = describe_error
        self._request_id_of = request_id_of
        self._watchdog = watchdog
        self._inline = InlinePool()
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    # -------------------------------------------------------- in gRPC's polling thread
    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        method = handler_call_details.method
        call_class = self._classes.get(method)
        if call_class is None:
            bug = InternalError(f"{method} was given no call class on this node")
            return self._refusing(grpc.StatusCode.INTERNAL, bug)
        refusal = self.admission.admit(call_class)
        if refusal is not None:
            return self._refused(method, call_class, refusal)
        return self._wrap(method, call_class, handler)

    def _refused(self, method: str, call_class: CallClass, refusal: Refusal) -> Handler:
        _log.debug("method=%s class=%s refused=%s", method, call_class, refusal.code.name)
        return self._refusing(refusal.code, refusal.error)

    def _refusing(self, code: grpc.StatusCode, error: GeostoreError) -> Handler:
        behavior = _Refuse(code, self._describe_error(error), self._inline)
        # A handler that takes a stream is called before any message came, so that this one
        # never blocks the polling thread. On the wire the four kinds of calls look alike.
        return grpc.stream_unary_rpc_method_handler(behavior)

    def _wrap(self, method: str, call_class: CallClass, handler: Handler) -> Handler:
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        behavior = _Serve(self, method, call_class, handler)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        wrapped: Handler = make(
            behavior,
            request_deserializer=_counted(method),
            response_serializer=_counted_serializer(method, handler.response_serializer),
        )
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    # -------------------------------------------------------- in the pool's thread
    def begin_call(self, method: str, call_class: CallClass, context: grpc.ServicerContext) -> Call:
        call = Call(method, call_class, context.peer(), start_s=self._watchdog.clock())
        serve_call(call)
        if not context.add_callback(call.cancel) or not context.is_active():
            call.cancel()  # it was over while it waited for this thread
        self._watchdog.watch(call, context)
        return call

    def requests(
        self, call: Call, messages: Iterator[bytes], parse: Callable[[bytes], Any]
    ) -> Requests:
        limits = self._limits
        return Requests(
            call,
            messages,
            clock=self._watchdog.clock,
            timeout_s=limits.request_timeout_s,
            parse=parse,
            bytes_max=limits.request_bytes_max.get(call.method, limits.message_bytes_max),
            # Health's messages are not the node's own: their ids are not asked for.
            request_id_of=self._request_id_of if call.method in self._named else _no_id,
        )

    def responses(
        self, call: Call, messages: Iterator[Any], context: grpc.ServicerContext
    ) -> Responses:
        responses = Responses(
            call,
            messages,
            clock=self._watchdog.clock,
            timeout_s=self._limits.stall_timeout_s,
            fail=lambda error: self.fail(call, context, error),
        )
        call.closing = responses.close
        return responses

    def fail(self, call: Call, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        """Ends a call whose handler raised."""
        if isinstance(error, grpc.RpcError) and not hasattr(error, "code"):
            call.status = grpc.StatusCode.CANCELLED.name
            raise error  # gRPC's own word that the client is gone; it knows what to do
        aborted = _aborted_code(context, error)
        if aborted is not None:
            call.status = aborted.name
            raise error
        if not isinstance(error, GeostoreError):
            _log.error(
                "method=%s request_id=%a failed", call.method, call.request_id, exc_info=error
            )
            error = InternalError(
                f"{call.method} failed by a bug; the node's log has the traceback"
            )
        failed = self._describe_error(error)
        call.status = failed.status.name
        _abort(context, failed.status, failed)

    def _end_call(self) -> None:
        """After gRPC is done with the call, in the thread that served it."""
        call = served_call()
        if call is None:
            return
        leave_call()
        self._watchdog.forget(call)
        try:
            if call.closing is not None:
                call.closing()
        except Exception:  # noqa: BLE001 - nobody is left who could be told
            _log.exception("method=%s request_id=%a did not close", call.method, call.request_id)
        summary = call.finish(self._watchdog.clock())
        REGISTRY.add(SERVER_ANSWERED_REQUESTS, labels=(summary.method, summary.status))
        REGISTRY.add(SERVER_REQUEST_SECONDS, summary.seconds, labels=(summary.method,))
        log_call(summary)


def _no_id(_message: Any) -> None:
    return None


class _Serve:
    """A handler as gRPC calls it. Unary requests are read as streams of one message: so a
    client that never sends its message is waited for here, where patience ends.
    """

    def __init__(
        self, dispatch: Dispatch, method: str, call_class: CallClass, handler: Handler
    ) -> None:
        self.experimental_thread_pool = dispatch.admission.pools[call_class]
        self._dispatch = dispatch
        self._method = method
        self._call_class = call_class
        self._request_streaming = handler.request_streaming
        self._response_streaming = handler.response_streaming
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or _as_it_is
        self._serve: Callable[[Any, grpc.ServicerContext], Any] = next(
            behavior
            for behavior in (
                handler.unary_unary,
                handler.unary_stream,
                handler.stream_unary,
                handler.stream_stream,
            )
            if behavior is not None
        )

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        call = self._dispatch.begin_call(self._method, self._call_class, context)
        try:
            call.check()
            requests = self._dispatch.requests(call, messages, self._parse)
            answer = self._serve(
                requests if self._request_streaming else self._only(requests), context
            )
        except Exception as error:  # noqa: BLE001 - fail() tells the client and the log
            self._dispatch.fail(call, context, error)
        if self._response_streaming:
            return self._dispatch.responses(call, answer, context)
        return answer

    def _only(self, requests: Requests) -> Any:
        for request in requests:
            return request
        raise InvalidInputError(f"{self._method} takes one message, got none")


class _Refuse:
    """A handler that ends its call at once, in gRPC's own thread."""

    def __init__(self, code: grpc.StatusCode, failed: FailedCall, inline: InlinePool) -> None:
        self.experimental_thread_pool = inline
        self._code = code
        self._failed = failed

    def __call__(self, _messages: Iterator[Any], context: grpc.ServicerContext) -> NoReturn:
        _abort(context, self._code, self._failed)


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, failed: FailedCall) -> NoReturn:
    if failed.metadata:
        context.set_trailing_metadata(tuple(failed.metadata))
    context.abort(code, failed.message[:_DETAILS_CHARS_MAX])


def _aborted_code(context: grpc.ServicerContext, error: Exception) -> grpc.StatusCode | None:
    """The code of a handler that ended its call itself: abort() raises a bare Exception."""
    if type(error) is not Exception or error.args:
        return None
    code: grpc.StatusCode | None = getattr(context, "code", lambda: None)()
    return code


def _as_it_is(payload: bytes) -> bytes:
    return payload


def _counted(method: str) -> Callable[[bytes], bytes]:
    def counted(payload: bytes) -> bytes:
        REGISTRY.add(SERVER_RECEIVED_BYTES, len(payload), labels=(method,))
        return payload

    return counted


def _counted_serializer(
    method: str, serialize: Callable[[Any], bytes] | None
) -> Callable[[Any], bytes]:
    """Handlers of bulk bytes give messages that are serialized already."""

    def counted(message: Any) -> bytes:
        call = current_call()
        try:
            if serialize is None or isinstance(message, bytes):
                payload: bytes = message
            else:
                payload = serialize(message)
        except Exception:
            call.status = grpc.StatusCode.INTERNAL.name  # which gRPC tells the client
            raise
        call.sent_bytes += len(payload)
        REGISTRY.add(SERVER_SENT_BYTES, len(payload), labels=(method,))
        return payload

    return counted
