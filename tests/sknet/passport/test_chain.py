"""The signed chain: read back as it was written, and refused if anything of it was changed."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from sknet.passport.chain import MADE_FROM, Kind, Link, LinkFile, read_chain, write_chain
from sknet.passport.signing import PublicKey, SigningKey, TamperedError
from tests.passports import key_pair
from tests.synthetic_store import sha256

Envelope = dict[str, Any]


def chain_of(*, without: Kind | None = None) -> list[Link]:
    """Return the links of a chain, each with one file."""
    links: dict[Kind, Link] = {}
    for kind, inputs in MADE_FROM.items():
        if kind == without:
            continue
        made_from = {name: links[other].digest for name, other in inputs.items()}
        if kind == "documents" and "promotion" in links:
            made_from["promotion"] = links["promotion"].digest
        links[kind] = Link(
            kind=kind,
            format_version=2,
            params={"lr": 4e-05, "epochs": 8, "name": "Größe", "full": True, "none": None},
            inputs=made_from,
            files=(LinkFile(path=f"{kind}.bin", size=5, sha256=sha256(kind)),),
            images=sha256("images") if kind == "dataset" else None,
        )
    return list(links.values())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, PublicKey]:
    private, public = key_pair(tmp_path_factory.mktemp("keys"))
    return SigningKey.read(private), PublicKey.read(public)


@pytest.mark.parametrize("without", [None, "promotion"])
def test_a_chain_is_read_back_as_it_was_written(
    keys: tuple[SigningKey, PublicKey], without: Kind | None
) -> None:
    private, public = keys
    links = chain_of(without=without)
    written = write_chain(links, private)
    assert read_chain(written, public).links == tuple(links)
    assert write_chain(links, private) == written


def test_in_toto_and_slsa_read_each_statement(keys: tuple[SigningKey, PublicKey]) -> None:
    private, _ = keys
    for line, link in zip(write_chain(chain_of(), private).splitlines(), chain_of(), strict=True):
        payload = base64.b64decode(json.loads(line)["payload"])
        read = json_format.Parse(payload, StatementMessage())
        Statement.copy_from_pb(read).validate()
        predicate = json_format.ParseDict(json_format.MessageToDict(read.predicate), Provenance())
        named = {each.name for each in predicate.build_definition.resolved_dependencies}
        assert named == set(link.inputs) | ({"images"} if link.images else set())
        assert read.subject[1].digest["sha256"] == link.files[0].sha256


def payload_of(envelope: Envelope) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(envelope["payload"])))


def with_payload(envelope: Envelope, statement: dict[str, Any]) -> Envelope:
    content = json.dumps(statement, sort_keys=True).encode()
    return {**envelope, "payload": base64.b64encode(content).decode()}


def other_weights(lines: list[Envelope]) -> list[Envelope]:
    statement = payload_of(lines[2])
    statement["subject"][1]["digest"]["sha256"] = sha256("other weights")
    return [*lines[:2], with_payload(lines[2], statement), *lines[3:]]


def other_learning_rate(lines: list[Envelope]) -> list[Envelope]:
    statement = payload_of(lines[2])
    statement["predicate"]["buildDefinition"]["externalParameters"]["lr"] = 1.0
    return [*lines[:2], with_payload(lines[2], statement), *lines[3:]]


def without_signature(lines: list[Envelope]) -> list[Envelope]:
    return [{**lines[0], "signatures": []}, *lines[1:]]


def of_another_type(lines: list[Envelope]) -> list[Envelope]:
    return [{**lines[0], "payloadType": "text/plain"}, *lines[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            other_weights,
            r"statement 3 \(checkpoint\) is not signed by key .*, or was changed since",
        ),
        (other_learning_rate, r"statement 3 \(checkpoint\) is not signed by key"),
        (without_signature, r"statement 1 \(dataset\) is not signed by key .* it names nobody"),
        (of_another_type, r"statement 1 \(dataset\) has a payload of another type"),
        (lambda lines: lines[:-1], "the chain has no documents"),
        (lambda lines: lines[1:], "the chain has no dataset"),
        (lambda lines: [*lines[:4], lines[5]], "tell of another promotion"),
        (lambda lines: [*lines[:4], lines[2], lines[5]], "2 statements of a checkpoint"),
        (lambda lines: lines * 2, "more than 6 statements"),
        (lambda _: [{"payload": ""}], "statement 1 is no DSSE envelope"),
        (lambda _: [7], "statement 1 is no DSSE envelope"),
        (lambda _: [], "the chain has no dataset"),
    ],
)
def test_a_tampered_chain_is_refused(
    keys: tuple[SigningKey, PublicKey],
    change: Callable[[list[Envelope]], list[Envelope]],
    message: str,
) -> None:
    private, public = keys
    lines = [json.loads(line) for line in write_chain(chain_of(), private).splitlines()]
    content = "\n".join(json.dumps(line) for line in change(lines)).encode()
    with pytest.raises(TamperedError, match=message):
        read_chain(content, public)


def test_a_chain_of_another_key_is_refused(
    keys: tuple[SigningKey, PublicKey], tmp_path: Path
) -> None:
    _, public = keys
    other, _ = key_pair(tmp_path)
    with pytest.raises(TamperedError, match=r"statement 1 \(dataset\) is not signed by key"):
        read_chain(write_chain(chain_of(), SigningKey.read(other)), public)


def test_who_has_the_key_can_not_sign_a_chain_that_does_not_hold_together(
    keys: tuple[SigningKey, PublicKey],
) -> None:
    private, public = keys
    links = chain_of()
    other = links[2].model_copy(update={"params": {"lr": 1.0}, "inputs": {"shards": "0" * 64}})
    with pytest.raises(TamperedError, match="checkpoint was made from another shards"):
        write_chain([*links[:2], other, *links[3:]], private)
    # A statement whose names don't follow from its files is refused, whoever signed it.
    statement = json.loads(links[0].statement)
    statement["subject"][0]["digest"] = {"sknet-artifact": "0" * 64}
    envelope = private.envelope(json.dumps(statement).encode())
    with pytest.raises(TamperedError, match="other names or digests than its files give"):
        read_chain(json.dumps(envelope).encode(), public)


def test_every_flipped_byte_of_a_chain_is_refused(
    keys: tuple[SigningKey, PublicKey],
) -> None:
    private, public = keys
    written = write_chain(chain_of(), private)
    for position in range(0, len(written), 97):
        flipped = bytearray(written)
        flipped[position] ^= 4
        try:
            read = read_chain(bytes(flipped), public)
        except TamperedError:
            continue
        # JSON has several texts for the same: what was read is what was signed.
        assert read.links == tuple(chain_of()), position
