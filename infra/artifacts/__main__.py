"""Look into an artifact store and maintain it: ``python -m infra.artifacts COMMAND --store URI``.

Exit codes: 0 all is well, 1 damage was found or the work failed, 2 the input is wrong.
"""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from cyclopts import App
from tabulate import tabulate

from infra.artifacts.documents import StoreError
from infra.artifacts.gc import Plan, collect, survey
from infra.artifacts.holdings import noting
from infra.artifacts.inspection import UNREADABLE
from infra.artifacts.opening import default_store, open_store
from infra.artifacts.options import (
    FetchOptions,
    GcOptions,
    LsOptions,
    Options,
    PushOptions,
    RefsOptions,
    RepairOptions,
    ShowOptions,
    VerifyOptions,
)
from infra.artifacts.records import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    UnreadableArtifactError,
)
from infra.artifacts.refs import Ref, former_target, require_kind
from infra.artifacts.store import ArtifactStore
from infra.artifacts.transfer import NOT_MOVED, copy_files, push_refs, with_inputs
from infra.artifacts.transfer import push as push_one
from infra.base.commands import as_command, new_app, start
from infra.base.console import showing_work
from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode

Row = dict[str, Any]
Chosen = TypeVar("Chosen", bound=Options)


def on_store(body: Callable[[ArtifactStore, Chosen], int]) -> Callable[[Chosen], int]:
    """Make a command of what is done to a store; what the body raises is its last line."""

    def run(options: Chosen) -> int:
        return run_interruptible(partial(_on_store, body, options))

    return as_command(run, body)


def _on_store(body: Callable[[ArtifactStore, Chosen], int], options: Chosen) -> int:
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        with showing_work("reading the store", quiet=options.quiet, verbose=options.verbose):
            return body(open_store(options.store or default_store(), create=False), options)
    except DamagedArtifactError as error:
        sys.stderr.write(f"damaged: {error}\n")
        return ExitCode.FAILED
    except (DigestConflictError, RefConflictError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.FAILED


# The commands. The name of each function is the command's; its docstring is the help text.


@on_store
def ls(store: ArtifactStore, options: LsOptions) -> int:
    """List artifacts.

    Example: `sknet store ls --store artifacts`
    """
    unreadable: dict[str, str] = {}
    rows = [
        {
            "artifact": f"{manifest.kind}/{manifest.key}",
            "files": len(manifest.files),
            "bytes": manifest.num_bytes,
            "created": manifest.provenance.get("created"),
        }
        for manifest in store.list(options.kind, on_unreadable=noting(unreadable))
    ]
    _print(rows, options)
    for path, reason in unreadable.items():
        sys.stderr.write(f"{path} can't be read: {reason}\n")
    if not rows and not unreadable and options.kind is None:
        sys.stderr.write(f"{_nothing_in(store)}\n")
    return ExitCode.FAILED if unreadable else ExitCode.DONE


@on_store
def show(store: ArtifactStore, options: ShowOptions) -> int:
    """Show one artifact.

    Example: `sknet store show production --store artifacts`
    """
    manifest = store.load(*_address(store, options.artifact)).manifest
    if options.json:
        sys.stdout.write(manifest.encode().decode())
        return ExitCode.DONE
    for name in ("kind", "key", "digest", "format_version"):
        sys.stdout.write(f"{name}: {getattr(manifest, name)}\n")
    for name in ("params", "inputs", "stats", "provenance"):
        for field, value in sorted(getattr(manifest, name).items()):
            sys.stdout.write(f"{name}.{field}: {json.dumps(value, sort_keys=True)}\n")
    _print([entry.model_dump() for entry in manifest.files], options)
    return ExitCode.DONE


@on_store
def verify(store: ArtifactStore, options: VerifyOptions) -> int:
    """Look for damage. Nothing is changed.

    Example: `sknet store verify --store artifacts`
    """
    unreadable: dict[str, str] = {}
    rows: list[Row] = []
    if options.artifact is not None:
        addresses = [_address(store, options.artifact)]
    else:
        addresses = [*store.addresses(on_unreadable=noting(unreadable))]
        if not addresses and not unreadable:
            raise StoreError(_nothing_in(store))
    for kind, key in addresses:
        try:
            damages = store.verify(kind, key, level=options.level)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            unreadable[f"{kind}/{key}"] = str(error.strerror)
        else:
            rows += [{"artifact": f"{kind}/{key}", **damage.model_dump()} for damage in damages]
    for path, reason in unreadable.items():
        detail = f"can't be read: {reason}"
        rows.append({"artifact": path, "problem": "unreadable", "path": ".", "detail": detail})
    _print(rows, options)
    num_unreadable = sum(row["problem"] == "unreadable" for row in rows)
    told = f", {num_unreadable} can't be read" if num_unreadable else ""
    num_damages = len(rows) - num_unreadable
    sys.stderr.write(f"{len(addresses)} artifacts verified, {num_damages} damages{told}\n")
    return ExitCode.FAILED if rows else ExitCode.DONE


@on_store
def fetch(store: ArtifactStore, options: FetchOptions) -> int:
    """Copy an artifact's files into a directory, verified.

    Example: `sknet store fetch production --store artifacts --out promoted`
    """
    artifact = store.load(*_address(store, options.artifact))
    copy_files(artifact, options.out)
    _print([entry.model_dump() for entry in artifact.manifest.files], options)
    return ExitCode.DONE


@on_store
def push(store: ArtifactStore, options: PushOptions) -> int:
    """Copy an artifact to another store, verified, and the refs that point to it.

    Example: `sknet store push production --store artifacts --to copies`
    """
    manifest = store.load(*_address(store, options.artifact)).manifest
    manifests = list(with_inputs(store, manifest)) if options.with_inputs else [manifest]
    target = open_store(options.to)
    rows = [
        {
            "artifact": f"{each.kind}/{each.key}",
            "bytes": each.num_bytes,
            "status": "pushed" if push_one(store, each, target) else "was there",
        }
        for each in manifests
    ]
    _print(rows, options)
    outcomes = push_refs(store, manifests, target)
    for name, outcome in outcomes.items():
        sys.stderr.write(f"refs/{name}: {outcome}\n")
    is_complete = not any(outcome.startswith(NOT_MOVED) for outcome in outcomes.values())
    return ExitCode.DONE if is_complete else ExitCode.FAILED


@on_store
def refs(store: ArtifactStore, options: RefsOptions) -> int:
    """Show where refs point, or the history of one; point one to an artifact, or roll one back.

    Example: `sknet store refs rollback production --store artifacts`
    """
    match list(options.words):
        case []:
            names = store.refs.names()
            rows = [_row(name, ref) for name in names if (ref := store.refs.get(name)) is not None]
        case [name] if name not in ("rollback", "set"):
            rows = [_row(name, ref) for ref in _history(store, name)]
        case ["rollback", name]:
            rows = [_row(name, _roll_back(store, name))]
        case ["set", name, artifact]:
            rows = [_row(name, _set(store, name, artifact, options.reason))]
        case words:
            raise StoreError(
                f"{' '.join(words)!r} is not understood, "
                "expected NAME, rollback NAME or set NAME KIND/KEY --reason TEXT"
            )
    _print(rows, options)
    return ExitCode.DONE


@on_store
def gc(store: ArtifactStore, options: GcOptions) -> int:
    """Show what nobody needs any more, and why the rest stays; with --delete, remove it.

    Example: `sknet store gc --store artifacts --days 30`
    """
    unused_since = datetime.now(UTC) - timedelta(days=options.days)
    planned = survey(store, unused_since=unused_since)
    reason = _why_not_collected(planned, options)
    refused: dict[str, str] = {}
    if options.delete and not reason:
        refused = collect(store, planned, unused_since=unused_since)
    rows: list[Row] = [
        {"what": path, "bytes": None, "fate": "stays", "why": f"can't be read: {why}"}
        for path, why in planned.unreadable.items()
    ]
    rows += [
        {
            "what": f"{kind}/{key}",
            "bytes": planned.num_bytes[kind, key],
            "fate": "stays",
            "why": why,
        }
        for (kind, key), why in planned.kept.items()
    ]
    goes = "removed" if options.delete and not reason else "would go"
    going = [
        (
            f"{artifact.manifest.kind}/{artifact.manifest.key}",
            artifact.manifest.num_bytes,
            f"unused since {artifact.used:%Y-%m-%d}",
        )
        for artifact in planned.garbage
    ]
    going += [(left.name, left.num_bytes, left.reason) for left in planned.leftovers]
    for path, num_bytes, why in going:
        fate, because = goes, why
        if path in refused:
            fate, because = "stays", f"can't be removed: {refused[path]}"
        rows.append({"what": path, "bytes": num_bytes, "fate": fate, "why": because})
    _print(rows, options)
    gone = [int(row["bytes"] or 0) for row in rows if row["fate"] == goes]
    hint = "" if options.delete or not gone else "; --delete removes it"
    sys.stderr.write(f"{len(gone)} of {len(rows)} {goes}, {sum(gone)} bytes{hint}\n")
    if reason:
        sys.stderr.write(f"nothing is removed: {reason}\n")
    if not rows:
        sys.stderr.write(f"{_nothing_in(store)}\n")
    if reason and options.delete:
        return ExitCode.USER_ERROR
    return ExitCode.FAILED if refused or planned.unreadable else ExitCode.DONE


def _why_not_collected(planned: Plan, options: GcOptions) -> str:
    """Return why a plan must not be carried out; empty if it may."""
    if planned.unreadable and planned.garbage:
        return (
            f"what can't be read here ({len(planned.unreadable)}, first "
            f"{next(iter(planned.unreadable))}) may have been made from it"
        )
    if planned.garbage and not planned.has_refs and not options.without_refs:
        return (
            "the store has no refs, so that only the days since its last use protect an artifact: "
            "`push` of an artifact brings its refs; --without-refs removes all the same"
        )
    return ""


@on_store
def repair(store: ArtifactStore, options: RepairOptions) -> int:
    """Set damaged artifacts aside, and remove what dead commits have left.

    Example: `sknet store repair --store artifacts`
    """
    pointing = {
        (ref.kind, ref.key): name
        for name in store.refs.names()
        if (ref := store.refs.get(name)) is not None
    }
    rows: list[Row] = []
    failed: dict[str, str] = {}
    addresses = [*store.addresses(on_unreadable=noting(failed))]
    if not addresses and not failed:
        sys.stderr.write(f"{_nothing_in(store)}\n")
    for kind, key in addresses:
        try:
            damages = store.set_aside(kind, key, level=options.level)
        except (UnreadableArtifactError, PermissionError) as error:
            failed[f"{kind}/{key}"] = str(error)
            continue
        if damages:
            name = pointing.get((kind, key))
            target = f"; refs/{name} points to it until then" if name else ""
            rows.append(
                {
                    "what": f"{kind}/{key}",
                    "problem": str(damages[0]),
                    "done": f"set aside: the next run that needs it builds it again{target}",
                }
            )
    for leftover in store.leftovers(datetime.min.replace(tzinfo=UTC)):
        try:
            leftover.remove()
        except PermissionError as error:
            failed[leftover.name] = str(error)
            continue
        rows.append({"what": leftover.name, "problem": leftover.reason, "done": "removed"})
    rows += [{"what": path, "problem": why, "done": "nothing"} for path, why in failed.items()]
    _print(rows, options)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _nothing_in(store: ArtifactStore) -> str:
    return (
        f"{store.location!r} holds no artifacts: check --store, and that its file system is mounted"
    )


def _history(store: ArtifactStore, name: str) -> tuple[Ref, ...]:
    entries = store.refs.history(name)
    if not entries:
        raise StoreError(f"there is no ref {name!r}, expected one that `refs` lists")
    return entries


def _roll_back(store: ArtifactStore, name: str) -> Ref:
    history = _history(store, name)
    current, former = history[-1], former_target(history)
    if former is None:
        raise StoreError(f"ref {name!r} has pointed to one artifact only: there is no way back")
    target = store.load(former.kind, former.key, level="full").manifest
    if target.digest != former.digest:
        raise StoreError(
            f"{former.kind}/{former.key} has digest {target.digest}, but version {former.version} "
            f"of ref {name!r} was set to {former.digest}"
        )
    reason = f"rolled back from version {current.version} to version {former.version}"
    return store.refs.set(name, target, expected=current, reason=reason, suspect=former.suspect)


def _set(store: ArtifactStore, name: str, artifact: str, reason: str | None) -> Ref:
    if reason is None:
        raise StoreError(
            f"ref {name!r} can't be set without --reason TEXT, which its history keeps"
        )
    current = store.refs.get(name)
    kind, key = _address(store, artifact)
    require_kind(name, current, kind)
    target = store.load(kind, key, level="full").manifest
    return store.refs.set(name, target, expected=current, reason=reason)


def _row(name: str, ref: Ref) -> Row:
    return {
        "ref": name,
        "version": ref.version,
        "artifact": f"{ref.kind}/{ref.key}",
        "digest": ref.digest,
        "time": ref.time.isoformat(timespec="seconds"),
        "reason": ref.reason,
        "suspect": ref.suspect,
    }


def _address(store: ArtifactStore, text: str) -> tuple[str, str]:
    kind, slash, key = text.partition("/")
    if slash:
        return kind, key
    ref = store.refs.get(text)
    if ref is None:
        raise StoreError(f"{text!r} is no artifact, expected KIND/KEY or the name of a ref")
    return ref.kind, ref.key


def _print(rows: Sequence[Row], options: Options) -> None:
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif rows:
        table = tabulate(rows, headers="keys", missingval="-", disable_numparse=True)
        sys.stdout.write(table + "\n")


def commands(name: str) -> App:
    """Return the commands, under the name that people type for them."""
    group = new_app(
        name,
        help="Look into an artifact store and maintain it.\n\n"
        "Example: `sknet store ls --store artifacts`",
    )
    for command in (ls, show, verify, fetch, push, refs, gc, repair):
        group.command(command)
    return group


app = commands("store")
"""The commands as those of `sknet store`."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return start(commands("python -m infra.artifacts"), words)


if __name__ == "__main__":
    sys.exit(main())
