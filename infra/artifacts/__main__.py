"""Look into a store: ``python -m infra.artifacts ls|show|verify|refs --store URI [--json]``.

Exit codes: 0 all is well, 1 damage was found, 2 the input is wrong.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

from infra.artifacts.errors import DamagedArtifactError, StoreError
from infra.artifacts.inspection import Level
from infra.artifacts.opening import open_store
from infra.artifacts.records import Manifest
from infra.artifacts.refs import Ref
from infra.artifacts.store import ArtifactStore

OK, DAMAGED, WRONG_INPUT = 0, 1, 2

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    command: Callable[[ArtifactStore, argparse.Namespace], int] = options.command
    try:
        return command(open_store(options.store, create=False), options)
    except DamagedArtifactError as error:
        sys.stderr.write(f"damaged: {error}\n")
        return DAMAGED
    except (StoreError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", required=True, metavar="URI", help="file:///abs/path or a path")
    common.add_argument("--json", action="store_true", help="print JSON")

    parser = argparse.ArgumentParser(prog="python -m infra.artifacts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="ls|show|verify|refs")

    ls = commands.add_parser("ls", parents=[common], help="list artifacts")
    ls.add_argument("kind", nargs="?", help="of this kind only")
    ls.set_defaults(command=_ls)

    show = commands.add_parser("show", parents=[common], help="show one artifact")
    show.add_argument("artifact", help="KIND/KEY, or the name of a ref")
    show.set_defaults(command=_show)

    verify = commands.add_parser("verify", parents=[common], help="look for damage")
    verify.add_argument("artifact", nargs="?", help="KIND/KEY, or the name of a ref; without, all")
    verify.add_argument(
        "--level",
        choices=get_args(Level),
        default="full",
        help="what is read: no file (size), files whose status has changed since they were last "
        "read (changed), all (full, the default)",
    )
    verify.set_defaults(command=_verify)

    refs = commands.add_parser("refs", parents=[common], help="show where refs point")
    refs.add_argument("name", nargs="?", help="show the history of this ref")
    refs.set_defaults(command=_refs)
    return parser


def _ls(store: ArtifactStore, options: argparse.Namespace) -> int:
    rows = [
        {
            "artifact": f"{manifest.kind}/{manifest.key}",
            "files": len(manifest.files),
            "bytes": _num_bytes(manifest),
            "created": manifest.provenance.get("created"),
        }
        for manifest in store.list(options.kind)
    ]
    _print(rows, options)
    return OK


def _show(store: ArtifactStore, options: argparse.Namespace) -> int:
    artifact = store.load(*_address(store, options.artifact))
    if options.json:
        sys.stdout.write(artifact.manifest.encode().decode())
        return OK
    manifest = artifact.manifest
    for name in ("kind", "key", "digest", "format_version"):
        sys.stdout.write(f"{name}: {getattr(manifest, name)}\n")
    sys.stdout.write(f"directory: {artifact.directory}\n")
    for name in ("params", "inputs", "stats", "provenance"):
        for field, value in sorted(getattr(manifest, name).items()):
            sys.stdout.write(f"{name}.{field}: {json.dumps(value, sort_keys=True)}\n")
    for entry in manifest.files:
        sys.stdout.write(f"{entry.sha256}  {entry.size:>14}  {entry.path}\n")
    return OK


def _verify(store: ArtifactStore, options: argparse.Namespace) -> int:
    if options.artifact is not None:
        addresses = [_address(store, options.artifact)]
    else:
        addresses = list(store.addresses())
    rows = [
        {"artifact": f"{kind}/{key}", **damage.model_dump()}
        for kind, key in addresses
        for damage in store.verify(kind, key, level=options.level)
    ]
    _print(rows, options)
    sys.stderr.write(f"{len(addresses)} artifacts verified, {len(rows)} damages\n")
    return DAMAGED if rows else OK


def _refs(store: ArtifactStore, options: argparse.Namespace) -> int:
    if options.name is None:
        names = store.refs.names()
        rows = [_row(name, ref) for name in names if (ref := store.refs.get(name)) is not None]
    else:
        rows = [_row(options.name, ref) for ref in store.refs.history(options.name)]
        if not rows:
            raise StoreError(f"there is no ref {options.name!r}, expected one that `refs` lists")
    _print(rows, options)
    return OK


def _row(name: str, ref: Ref) -> Row:
    return {
        "ref": name,
        "version": ref.version,
        "artifact": f"{ref.kind}/{ref.key}",
        "digest": ref.digest,
        "time": ref.time.isoformat(timespec="seconds"),
        "reason": ref.reason,
    }


def _address(store: ArtifactStore, text: str) -> tuple[str, str]:
    kind, slash, key = text.partition("/")
    if slash:
        return kind, key
    ref = store.refs.get(text)
    if ref is None:
        raise StoreError(f"{text!r} is no artifact, expected KIND/KEY or the name of a ref")
    return ref.kind, ref.key


def _num_bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files)


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        sys.stdout.write(
            "  ".join("-" if value is None else str(value) for value in row.values()) + "\n"
        )


if __name__ == "__main__":
    sys.exit(main())
