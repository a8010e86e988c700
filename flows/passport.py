"""Passports of checkpoints: a model card, the data's metadata and the signed chain of digests.

python -m flows.passport new-key|make|verify …
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from infra.artifacts import (
    ArtifactStore,
    DamagedArtifactError,
    Manifest,
    Ref,
    StoreError,
    default_store,
    open_store,
    resolve,
)
from infra.base.commands import STORE, ConsoleOptions, as_command, new_app, start
from infra.base.console import showing_work
from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode
from sknet.data.copies.leaks import OnLeak
from sknet.data.sources import Source, absolute, open_source
from sknet.data.staging import stage_source
from sknet.errors import UserError
from sknet.passport.fields import CARD_TEMPLATE
from sknet.passport.signing import PublicKey, TamperedError
from sknet.passport.signing import new_key as write_new_key
from tasks.catalog.passports import (
    CARD_SETTING,
    KEY_SETTING,
    Issuer,
    build_passport,
    copy_passport,
    passport_spec,
    prepare_copy,
    signed_passport,
    sources_of,
    verify_files,
    verify_in_store,
)
from tasks.catalog.production import PRODUCTION


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """The options of new-key."""

    out: Path = Path("signing-key.pem")
    """File for the private key; the public one is the same with .pub after it."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(ConsoleOptions):
    """Which checkpoint a passport is of."""

    store: Annotated[str | None, STORE] = None
    """The artifact store: a path, file:///… or s3://…"""
    ref: Annotated[str | None, Parameter(show_default=PRODUCTION)] = None
    """Name of a ref, or checkpoint/KEY."""


@dataclass(frozen=True, kw_only=True)
class MakeOptions(CheckpointOptions):
    """The options of make."""

    card: Annotated[Path | None, Parameter(show_default=CARD_SETTING)] = None
    """File with what only you know of the model, as `sknet passport card` prints it."""
    key: Annotated[Path | None, Parameter(show_default=f"{KEY_SETTING}, or none")] = None
    """File of the private key that signs."""
    out: Path | None = None
    """New directory for a copy, with the index of the data set."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(CheckpointOptions):
    """The options of verify."""

    key: Path
    """File of the public key of whom you trust."""
    data: str | None = None
    """Also read all images of this source, and compare them."""
    passport: Path | None = None
    """Directory with a copy of a passport, to verify without a store, with --checkpoint."""
    checkpoint: Path | None = None
    """Copy of the checkpoint, or its model.ckpt, with --passport."""


def told(body: Callable[..., None]) -> Callable[..., int]:
    """Make a command of a function; what it raises is the command's last line.

    Its exit codes are 0 done, 1 refused or failed, 2 the input is wrong.
    """

    def run(*options: object) -> int:
        return run_interruptible(partial(_run, body, *options))

    return as_command(run, body)


def _run(body: Callable[..., None], *options: object) -> int:
    try:
        body(*options)
    except (TamperedError, DamagedArtifactError) as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.DONE


# The commands. The docstring of each function is the help text.


@told
def new_key(options: KeyOptions) -> None:
    """Make a pair of keys: the private one to sign with, the public one to verify with.

    Example: `sknet passport new-key --out signing-key.pem`
    """
    path = options.out
    public = write_new_key(path)
    print(f"private key  {path}: keep it secret; export {KEY_SETTING}={path.absolute()}")
    print(f"public key   {public}: give it to whoever verifies, by a way that they trust")
    print(f"id           {PublicKey.read(public).id}")


@told
def card() -> None:
    """Print a card to fill in: licences, authors, intended use.

    Example: `sknet passport card > card.yaml`
    """
    print(CARD_TEMPLATE, end="")


@told
def make(options: MakeOptions) -> None:
    """Make the passport of a checkpoint, or find it in the store.

    Example: `sknet passport make --store artifacts --card card.yaml`
    """
    issuer = Issuer.read(options.card, options.key)
    with _shown(options, "reading the store"):
        store, checkpoint = _checkpoint(options)
        sources = sources_of(store, store.load(checkpoint.kind, checkpoint.key))
        if options.out:
            prepare_copy(options.out)
        resolution = resolve(
            store, passport_spec(sources, issuer), partial(build_passport, sources, issuer)
        )
    passport = resolution.artifact
    print(f"{resolution.status:<9} passport/{passport.manifest.key}")
    print(f"signed by {issuer.key.id}" if issuer.key else f"not signed: set {KEY_SETTING}")
    if missing := issuer.fields.missing:
        print(f"not told  {', '.join(missing)}: fill in --card FILE, or {CARD_SETTING}")
    if options.out:
        copy_passport(store, passport, options.out)
        print(f"copied to {options.out}")


@told
def verify(options: VerifyOptions) -> None:
    """Compare a checkpoint, its data and its documents with the signed chain of digests.

    Example: `sknet passport verify --store artifacts --key signing-key.pem.pub`
    """
    if bool(options.passport) != bool(options.checkpoint):
        raise UserError("--passport and --checkpoint go together: give both, or neither")
    if options.passport and (options.store or options.ref):
        raise UserError(
            "--passport verifies copies, without a store: leave out --store and --ref, or else "
            "--passport and --checkpoint"
        )
    key = PublicKey.read(options.key)
    source = open_source(absolute(options.data)) if options.data else None
    with _shown(options, "reading the signed chain"):
        if options.passport and options.checkpoint:
            chain = verify_files(options.passport, options.checkpoint, key)
            print(f"verified  checkpoint/{chain.required('checkpoint').key}, signed by {key.id}")
        else:
            store, target = _checkpoint(options)
            passport = signed_passport(store, target, key)
            found, chain = verify_in_store(store, target, passport, key)
            for name, state in found.items():
                print(f"{state:<9} {name}")
            print(f"signed by {key.id}")
        if source:
            _compare_images(source, chain.required("dataset").images)
            print(f"verified  the images in {options.data}")


def _shown(options: CheckpointOptions, phase: str) -> AbstractContextManager[None]:
    return showing_work(phase, quiet=options.quiet, verbose=options.verbose)


def _compare_images(source: Source, signed: str | None) -> None:
    """Read all images of a source, and compare them with the signed ones.

    Raises:
        TamperedError: They differ.
    """
    # What was signed may lack the images that `--on-leak drop` had left out.
    policies: tuple[OnLeak, ...] = ("warn", "drop")
    found = (stage_source(source, on_leak=each).dataset.samples_digest for each in policies)
    if not any(digest == signed for digest in found):
        raise TamperedError(f"the images in {source.location} are not those that were signed")


def _checkpoint(options: CheckpointOptions) -> tuple[ArtifactStore, Ref | Manifest]:
    """Return the store, and where in it the checkpoint is that the options name.

    Raises:
        StoreError: There is none.
    """
    store = open_store(options.store or default_store(), create=False)
    name = options.ref or PRODUCTION
    kind, slash, key = name.partition("/")
    found = store.load(kind, key).manifest if slash else store.refs.get(name)
    if found is None:
        raise StoreError(f"there is no ref {name!r}: expected one, or checkpoint/KEY")
    if found.kind != "checkpoint":
        raise StoreError(f"{name} is a {found.kind}: a passport is of a checkpoint")
    return store, found


def commands(name: str) -> App:
    """Return the commands, under the name that people type for them."""
    group = new_app(
        name,
        help="Make and verify the passport of a checkpoint: card, metadata, signed digests.\n\n"
        "Example: `sknet passport verify --store artifacts --key signing-key.pem.pub`",
    )
    for command in (new_key, card, make, verify):
        group.command(command)
    return group


app = commands("passport")
"""The commands as those of `sknet passport`."""


if __name__ == "__main__":
    sys.exit(start(commands("python -m flows.passport")))
