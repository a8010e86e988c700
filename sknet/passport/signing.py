"""Signatures in DSSE envelopes, the form that in-toto's tools read, by an Ed25519 key of one's own.

A signature of Ed25519 is a function of key and content, so that equal chains have equal bytes.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sknet.errors import UserError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_KEY_BYTES = 64 << 10


class TamperedError(RuntimeError):
    """A chain, a signature or a file is not what was signed. Exit code 1."""


@dataclass(frozen=True)
class SigningKey:
    """A private key."""

    signer: "CryptoSigner"

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """Read a private key from PEM.

        Raises:
            UserError: There is no such file, or it holds no Ed25519 key in PKCS#8 without password.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        content = _content(path)
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as error:  # TypeError: it is encrypted
            raise UserError(
                f"signing key {path} can't be used, {_line(error)}: expected PEM without password, "
                "as `sknet passport new-key` makes it"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise _other_type(f"signing key {path}", key)
        return cls(CryptoSigner(key))

    @property
    def id(self) -> str:
        """Identifies the key pair: SHA-256 over the public key, in hex."""
        return str(self.signer.public_key.keyid)

    def envelope(self, payload: bytes) -> dict[str, Any]:
        """Return a signed envelope around a statement."""
        from securesystemslib.dsse import Envelope

        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(self.signer)
        return dict(envelope.to_dict())


@dataclass(frozen=True)
class PublicKey:
    """A public key that is trusted."""

    key: "SSlibKey"

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """Read a public key from PEM.

        Raises:
            UserError: There is no such file, or it holds no public Ed25519 key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.signer import SSlibKey

        content = _content(path)
        try:
            key = load_pem_public_key(content)
        except ValueError as error:
            raise UserError(
                f"public key {path} can't be used, {_line(error)}: expected PEM, as "
                "`sknet passport new-key` makes it"
            ) from None
        if not isinstance(key, Ed25519PublicKey):
            raise _other_type(f"public key {path}", key)
        return cls(SSlibKey.from_crypto(key))

    @property
    def id(self) -> str:
        """Identifies the key pair, as `SigningKey.id` does."""
        return str(self.key.keyid)

    def payload(self, envelope: dict[str, Any], where: str) -> bytes:
        """Return the statement in an envelope that this key has signed.

        Args:
            envelope: The parsed JSON of the envelope.
            where: Where it is, for the message.

        Raises:
            TamperedError: It is no envelope, or this key hasn't signed it as it is.
        """
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import VerificationError

        if set(envelope) != {"payload", "payloadType", "signatures"}:
            raise TamperedError(f"{where} is no DSSE envelope")
        try:
            read = Envelope.from_dict(json.loads(json.dumps(envelope)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TamperedError(f"{where} is no DSSE envelope: {_line(error)}") from None
        if read.payload_type != PAYLOAD_TYPE:
            raise TamperedError(f"{where} has a payload of another type than {PAYLOAD_TYPE}")
        try:
            read.verify([self.key], 1)
        except VerificationError:
            signers = ", ".join(sorted(str(each)[:10] for each in read.signatures)) or "nobody"
            raise TamperedError(
                f"{where} is not signed by key {self.id[:10]}, or was changed since: it names "
                f"{signers}"
            ) from None
        return bytes(read.payload)


def new_key(path: Path) -> Path:
    """Make a key pair: the private key in `path`, the public one beside it as `….pub`.

    Returns:
        The path of the public key.

    Raises:
        UserError: One of the files is there already, or can't be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    written: list[Path] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The public one first: a private key without it would look like a whole pair.
        for file, content, mode in ((public, public_pem, 0o644), (path, private_pem, 0o600)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
    except OSError as error:
        for file in written:  # a public key beside another private key would mislead
            file.unlink()
        if isinstance(error, FileExistsError):
            raise UserError(f"{error.filename} is there already: a key is never replaced") from None
        raise UserError(f"key {path} can't be written: {error.strerror}") from None
    return public


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UserError(f"key {path} can't be read: {error.strerror}") from None
    if len(content) > MAX_KEY_BYTES:
        raise UserError(f"key {path} is larger than {MAX_KEY_BYTES} bytes: expected PEM")
    return content


def _other_type(what: str, key: object) -> UserError:
    return UserError(
        f"{what} is of type {type(key).__name__}: expected Ed25519, as `sknet passport new-key` "
        "makes it"
    )


def _line(error: Exception) -> str:
    """Return what is wrong as one line, without the advice that follows it."""
    return " ".join(str(error).split()).partition(". ")[0][:200]
