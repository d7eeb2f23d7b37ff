"""Signals in a process of their own, as a node meets them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import grpc
import pytest

SCRIPT = textwrap.dedent("""
    import sys
    import grpc
    from geostore.config import HostPort
    from geostore.server import CallClass, NodeServer, current_call, run_until_signal
    import threading

    def wait(request, context):
        cancelled = threading.Event()
        current_call().on_cancel(cancelled.set)
        print("began", flush=True)
        cancelled.wait()
        return b""

    handlers = {"Wait": grpc.unary_unary_rpc_method_handler(wait)}
    generic = grpc.method_handlers_generic_handler("t.T", handlers)
    server = NodeServer(
        listen=HostPort("127.0.0.1", 0),
        services=[lambda s: s.add_generic_rpc_handlers((generic,))],
        classes={"/t.T/Wait": CallClass.LEAF},
    )
    server.start()
    server.serve()
    ready = lambda: print(server.address, flush=True)
    told = lambda: print("draining", flush=True)
    sys.exit(run_until_signal(server, grace_s=3600, on_ready=ready, on_signal=told))
""")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_a_second_one_hurries(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/t.T/Wait").future(b"", timeout=60)
            assert process.stdout.readline() == "began\n"
            process.send_signal(number)
            assert process.stdout.readline() == "draining\n"
            assert process.poll() is None
            process.send_signal(number)
            assert call.exception(30) is not None
            assert process.wait(60) == 0


def test_an_idle_node_ends_at_once_with_zero() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
