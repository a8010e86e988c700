"""Passports of checkpoints: a model card, the data's metadata and the signed chain of digests.

python -m flows.passport new-key|make|verify …
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode
from sknet.data.copies.leaks import OnLeak
from sknet.data.sources import absolute, open_source
from sknet.data.staging import stage_source
from sknet.errors import UserError
from sknet.passport.fields import CARD_TEMPLATE
from sknet.passport.signing import PublicKey, TamperedError, new_key
from sknet.records import Dataset
from tasks.catalog.passports import (
    CARD_SETTING,
    KEY_SETTING,
    Issuer,
    build_passport,
    copy_passport,
    passport_spec,
    signed_passport,
    sources_of,
    verify_files,
    verify_in_store,
)
from tasks.catalog.production import PRODUCTION


def main(arguments: argparse.Namespace) -> int:
    """Run one command and return its exit code: 0 done, 1 refused or failed, 2 wrong input."""
    return run_interruptible(partial(_run, arguments))


def _run(arguments: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except (TamperedError, DamagedArtifactError) as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_ERROR
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.DONE


# The commands. The docstring of each function is the help text.


def make_key(arguments: argparse.Namespace) -> None:
    """Make a pair of keys: the private one to sign with, the public one to verify with."""
    path = Path(arguments.out)
    public = new_key(path)
    print(f"private key  {path}: keep it secret; export {KEY_SETTING}={path.absolute()}")
    print(f"public key   {public}: give it to whoever verifies, by a way that they trust")
    print(f"id           {PublicKey.read(public).id}")


def template(arguments: argparse.Namespace) -> None:
    """Print a card to fill in: licences, authors, intended use."""
    del arguments
    print(CARD_TEMPLATE, end="")


def make(arguments: argparse.Namespace) -> None:
    """Make the passport of a checkpoint, or find it in the store."""
    issuer = Issuer.of_environment()
    if arguments.card or arguments.key:
        given = Issuer.of_paths(_path(arguments.card), _path(arguments.key))
        issuer = Issuer(
            given.fields if arguments.card else issuer.fields,
            given.key if arguments.key else issuer.key,
        )
    store = open_store(arguments.store, create=False)
    checkpoint = _checkpoint(store, arguments.ref)
    sources = sources_of(store, store.load(checkpoint.kind, checkpoint.key))
    resolution = resolve(
        store, passport_spec(sources, issuer), partial(build_passport, sources, issuer)
    )
    passport = resolution.artifact
    print(f"{resolution.status:<9} passport/{passport.manifest.key}")
    print(f"signed by {issuer.key.id}" if issuer.key else f"not signed: set {KEY_SETTING}")
    if missing := issuer.fields.missing:
        print(f"not told  {', '.join(missing)}: fill in --card FILE, or {CARD_SETTING}")
    if arguments.out:
        copy_passport(store, passport, Path(arguments.out))
        print(f"copied to {arguments.out}")


def verify(arguments: argparse.Namespace) -> None:
    """Compare a checkpoint, its data and its documents with the signed chain of digests."""
    key = PublicKey.read(Path(arguments.key))
    if arguments.passport or arguments.checkpoint:
        if not (arguments.passport and arguments.checkpoint):
            raise UserError("--passport and --checkpoint go together: give both, or neither")
        chain = verify_files(Path(arguments.passport), Path(arguments.checkpoint), key)
        images = chain.required("dataset").images
        print(f"verified  checkpoint/{chain.required('checkpoint').key}, signed by {key.id}")
    else:
        store = open_store(arguments.store, create=False)
        ref = _checkpoint(store, arguments.ref)
        passport = signed_passport(store, ref, key)
        for name, found in verify_in_store(store, ref, passport, key).items():
            print(f"{found:<9} {name}")
        print(f"signed by {key.id}")
        dataset = store.find("dataset", passport.manifest.inputs["dataset"])
        images = Dataset.read(dataset.path("dataset.json")).samples_digest
    if arguments.data:
        _compare_images(arguments.data, images)
        print(f"verified  the images in {arguments.data}")


def _compare_images(data: str, signed: str | None) -> None:
    """Read all images of a source, and compare them with the signed ones.

    Raises:
        TamperedError: They differ.
    """
    source = open_source(absolute(data))
    # What was signed may lack the images that `--on-leak drop` had left out.
    policies: tuple[OnLeak, ...] = ("warn", "drop")
    found = (stage_source(source, on_leak=each).dataset.samples_digest for each in policies)
    if not any(digest == signed for digest in found):
        raise TamperedError(f"the images in {data} are not those that were signed")


def _checkpoint(store: ArtifactStore, name: str) -> Ref | Manifest:
    """Return where a checkpoint is, given the name of a ref or `checkpoint/KEY`.

    Raises:
        StoreError: There is none.
    """
    kind, slash, key = name.partition("/")
    found = store.load(kind, key).manifest if slash else store.refs.get(name)
    if found is None:
        raise StoreError(f"there is no ref {name!r}: expected one, or checkpoint/KEY")
    if found.kind != "checkpoint":
        raise StoreError(f"{name} is a {found.kind}: a passport is of a checkpoint")
    return found


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands and their options."""
    result = argparse.ArgumentParser(
        prog="python -m flows.passport", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    commands = result.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        text = str(command.__doc__).splitlines()[0]
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    keys = add("new-key", make_key)
    keys.add_argument(
        "--out",
        default="signing-key.pem",
        metavar="FILE",
        help="file for the private key; the public one is FILE.pub (default: %(default)s)",
    )
    add("card", template)
    making = add("make", make)
    making.add_argument(
        "--card",
        metavar="FILE",
        help=f"what only you know of the model, as `card` prints it (default: {CARD_SETTING})",
    )
    making.add_argument(
        "--key", metavar="FILE", help=f"private key that signs (default: {KEY_SETTING}, or none)"
    )
    making.add_argument(
        "--out", metavar="DIR", help="new directory for a copy, with the index of the data set"
    )
    verifying = add("verify", verify)
    verifying.add_argument(
        "--key", required=True, metavar="FILE", help="public key of whom you trust"
    )
    verifying.add_argument(
        "--data", metavar="SOURCE", help="also read all images of this source, and compare them"
    )
    verifying.add_argument(
        "--passport", metavar="DIR", help="copy of a passport, to verify without a store"
    )
    verifying.add_argument(
        "--checkpoint", metavar="PATH", help="copy of the checkpoint, or its model.ckpt"
    )
    for command in (making, verifying):
        command.add_argument(
            "--store",
            default=default_store(),
            help="a path, file:///… or s3://… (default: SKNET_STORE, or artifacts)",
        )
        command.add_argument(
            "--ref",
            default=PRODUCTION,
            help="name of a ref, or checkpoint/KEY (default: %(default)s)",
        )
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
