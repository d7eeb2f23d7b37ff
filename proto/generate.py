"""Writes the Python code of the messages and services under proto/ into the package.

    python proto/generate.py [--out DIRECTORY]

The files lie in the package as the .proto files lie here, so protoc's imports are absolute
and right as they stand. Needs grpcio-tools in the version that pyproject.toml pins: another
one writes other files. An old version is pinned on purpose: code that protoc generates runs
with its own and later versions of protobuf and grpcio only, and users have theirs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent
PACKAGE_FILES = Path("geostore/rpc/v1")
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def generate(out: Path) -> list[Path]:
    """Writes all generated files under `out`/geostore/rpc/v1; returns their paths."""
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted(PROTO.rglob("*.proto"))
    with_services = [path for path in sources if "\nservice " in path.read_text("utf-8")]
    includes = [f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    for options, files in (
        ([f"--python_out={out}", f"--pyi_out={out}"], sources),
        ([f"--grpc_python_out={out}"], with_services),
    ):
        status = protoc.main(["protoc", *includes, *options, *map(str, files)])
        if status:
            sys.exit(status)
    return generated_files(out)


def generated_files(root: Path) -> list[Path]:
    """The generated files under a root, sorted."""
    return sorted(path for pattern in PATTERNS for path in (root / PACKAGE_FILES).glob(pattern))


def main() -> None:
    """Generates, or checks what was generated."""
    parser = argparse.ArgumentParser(description="generate geostore/rpc/v1 from proto/")
    parser.add_argument("--out", type=Path, default=PROTO.parent, help="root to write under")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where --out's files are stale"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {path.name: path.read_bytes() for path in generate(Path(scratch))}
    target = options.out / PACKAGE_FILES
    there = {path.name: path.read_bytes() for path in generated_files(options.out)}
    stale = sorted(
        name for name in fresh.keys() | there.keys() if fresh.get(name) != there.get(name)
    )
    if options.check:
        if stale:
            sys.exit(f"{target}: not what proto/ generates: {', '.join(stale)}; run {sys.argv[0]}")
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in there.keys() - fresh.keys():
        (target / name).unlink()
    for name, text in fresh.items():
        (target / name).write_bytes(text)


if __name__ == "__main__":
    main()
