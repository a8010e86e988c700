"""The chain of digests from the images to the checkpoint and its documents, as in-toto statements.

Each artifact has a statement of its own with SLSA's provenance as its predicate: its files with
their SHA-256, what it was made from, and with which parameters. A statement names what it was made
from by digest, and that digest follows from the files of another statement. So no file and no
parameter can change without breaking the chain, and none of it without the private key.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from infra.base.records import Record, Sha256, canonical_json, sha256_of_json
from sknet.passport.signing import PublicKey, SigningKey, TamperedError
from sknet.records.fields import NonNegativeInt, PositiveInt

CHAIN_FILE = "chain.intoto.jsonl"
CARD_FILE = "model-card.md"
CROISSANT_FILE = "croissant.json"

MAX_CHAIN_BYTES = 256 << 20
"""Largest chain that is read. A statement has 300 bytes for each file of its artifact."""

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
BUILDER = "urn:sknet:pipeline"
ARTIFACT_DIGEST = "sknet-artifact"
"""Algorithm of an artifact's digest: SHA-256 over the canonical JSON of the sorted list of
`[path, size, sha256]` of its files."""
SAMPLES_DIGEST = "sknet-samples"
"""Algorithm of a data set's digest: SHA-256 over split, key, label, size and SHA-256 of each image,
separated by zero bytes, with a line feed after each image."""

Kind = Literal["dataset", "shards", "checkpoint", "evaluation", "promotion", "documents"]

MADE_FROM: Mapping[Kind, Mapping[str, Kind]] = {
    "dataset": {},
    "shards": {"dataset": "dataset"},
    "checkpoint": {"shards": "shards"},
    "evaluation": {"checkpoint": "checkpoint", "shards": "shards"},
    "promotion": {"candidate": "evaluation"},
    "documents": {
        "dataset": "dataset",
        "shards": "shards",
        "checkpoint": "checkpoint",
        "evaluation": "evaluation",
    },
}
"""Kind of an artifact → name of each input that is a link of the chain → its kind."""

OPTIONAL: frozenset[Kind] = frozenset({"promotion"})
"""Kinds without which a chain is complete: a checkpoint may be promoted by hand."""


class LinkFile(Record):
    """A file of an artifact."""

    path: Annotated[str, StringConstraints(min_length=1)]
    size: NonNegativeInt
    """In bytes."""
    sha256: Sha256


class Link(Record):
    """An artifact, and what it was made from."""

    kind: Kind
    format_version: PositiveInt
    params: dict[str, JsonValue]
    inputs: dict[str, Sha256]
    """Name of each artifact that it was made from → its digest."""
    files: Annotated[tuple[LinkFile, ...], Field(min_length=1)]
    images: Sha256 | None = None
    """Digest of the images that a data set lists; None for other kinds."""

    @property
    def key(self) -> str:
        """The artifact's name in a store."""
        return sha256_of_json(
            {
                "kind": self.kind,
                "format_version": self.format_version,
                "params": self.params,
                "inputs": self.inputs,
            }
        )

    @property
    def digest(self) -> str:
        """The artifact's digest."""
        return sha256_of_json(sorted([file.path, file.size, file.sha256] for file in self.files))

    @property
    def statement(self) -> bytes:
        """The link as an in-toto statement."""
        dependencies = [
            {"name": name, "digest": {ARTIFACT_DIGEST: digest}}
            for name, digest in sorted(self.inputs.items())
        ]
        if self.images is not None:
            dependencies.append({"name": "images", "digest": {SAMPLES_DIGEST: self.images}})
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": f"{self.kind}/{self.key}", "digest": {ARTIFACT_DIGEST: self.digest}},
                *(
                    {
                        "name": file.path,
                        "digest": {"sha256": file.sha256},
                        "annotations": {"size": file.size},
                    }
                    for file in self.files
                ),
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": f"urn:sknet:{self.kind}:{self.format_version}",
                    "externalParameters": self.params,
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {"builder": {"id": BUILDER}},
            },
        }
        return canonical_json(statement)

    @classmethod
    def of_statement(cls, payload: bytes, where: str) -> Self:
        """Return the link that a statement describes.

        Raises:
            TamperedError: It is no such statement.
        """
        try:
            found = _parsed(payload)
            link = cls.model_validate(found)
            same = json.loads(link.statement) == json.loads(payload)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TamperedError(f"{where} is no statement of a link: {_line(error)}") from None
        if not same:
            raise TamperedError(f"{where} has other names or digests than its files give")
        return link


@dataclass(frozen=True)
class Chain:
    """The links from the images to the checkpoint and its documents, each of its kind once."""

    links: tuple[Link, ...]

    def of(self, kind: Kind) -> Link | None:
        """Return the link of a kind; None if the chain has none."""
        return next((link for link in self.links if link.kind == kind), None)

    def required(self, kind: Kind) -> Link:
        """Return the link of a kind.

        Raises:
            TamperedError: The chain has none.
        """
        link = self.of(kind)
        if link is None:
            raise TamperedError(f"the chain has no {kind}: a statement was taken away")
        return link

    def check(self) -> None:
        """Check that each link is there once, and made from the others as it must be.

        Raises:
            TamperedError: Something is missing, doubled, or made from something else.
        """
        kinds = [link.kind for link in self.links]
        for kind, inputs in MADE_FROM.items():
            if kinds.count(kind) > 1:
                raise TamperedError(f"the chain has {kinds.count(kind)} statements of a {kind}")
            if kind in OPTIONAL and kind not in kinds:
                continue
            link = self.required(kind)
            for name, kind_of_input in inputs.items():
                found, expected = link.inputs.get(name), self.required(kind_of_input).digest
                if found != expected:
                    raise TamperedError(
                        f"the chain's {kind} was made from another {kind_of_input}: "
                        f"{str(found)[:10]}, and the chain has {expected[:10]}"
                    )
        promotion, documents = self.of("promotion"), self.required("documents")
        told = documents.inputs.get("promotion")
        if told != (promotion.digest if promotion else None):
            raise TamperedError("the chain's documents tell of another promotion than the chain")
        if self.required("dataset").images is None:
            raise TamperedError("the chain's dataset names no images")


def write_chain(links: Iterable[Link], key: SigningKey) -> bytes:
    """Return a chain as lines of signed envelopes, from the images on."""
    chain = Chain(tuple(links))
    chain.check()
    lines = [json.dumps(key.envelope(link.statement), sort_keys=True) for link in chain.links]
    return "".join(f"{line}\n" for line in lines).encode()


def read_chain(content: bytes, key: PublicKey) -> Chain:
    """Return a chain that a key has signed, whole and in itself consistent.

    Args:
        content: What `write_chain` returned.
        key: The key that is trusted.

    Raises:
        TamperedError: A statement is missing, was changed, or is signed by another key.
    """
    if len(content) > MAX_CHAIN_BYTES:
        raise TamperedError(f"{CHAIN_FILE} is larger than {MAX_CHAIN_BYTES} bytes")
    links = []
    for number, line in enumerate(content.splitlines(), 1):
        where = f"statement {number}"
        if number > len(MADE_FROM):
            raise TamperedError(f"{CHAIN_FILE} has more than {len(MADE_FROM)} statements")
        try:
            envelope = json.loads(line)
        except (ValueError, RecursionError):
            raise TamperedError(f"{where} is no JSON") from None
        if not isinstance(envelope, dict):
            raise TamperedError(f"{where} is no DSSE envelope")
        if kind := _claimed_kind(envelope):
            where += f" ({kind})"
        links.append(Link.of_statement(key.payload(envelope, where), where))
    chain = Chain(tuple(links))
    chain.check()
    return chain


def _claimed_kind(envelope: dict[str, Any]) -> str:
    """Return the kind of link that an envelope claims to hold, for messages; empty if it isn't one.

    Nothing has been verified of it yet.
    """
    try:
        kind = _parsed(base64.b64decode(envelope["payload"]))["kind"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return kind if kind in MADE_FROM else ""


def _parsed(payload: bytes) -> dict[str, Any]:
    """Return the fields of a link from the text of a statement."""
    statement = json.loads(payload)
    definition = statement["predicate"]["buildDefinition"]
    _, _, kind, version = definition["buildType"].split(":")
    inputs, images = {}, None
    for dependency in definition["resolvedDependencies"]:
        if SAMPLES_DIGEST in dependency["digest"]:
            images = dependency["digest"][SAMPLES_DIGEST]
        else:
            inputs[dependency["name"]] = dependency["digest"][ARTIFACT_DIGEST]
    return {
        "kind": kind,
        "format_version": int(version),
        "params": definition["externalParameters"],
        "inputs": inputs,
        "images": images,
        "files": tuple(
            {
                "path": subject["name"],
                "size": subject["annotations"]["size"],
                "sha256": subject["digest"]["sha256"],
            }
            for subject in statement["subject"][1:]
        ),
    }


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
