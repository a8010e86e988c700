"""Keys come in pairs, are never replaced, and are refused if they are of another kind."""

import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sknet.passport.signing import PublicKey, SigningKey, new_key
from tests.passports import key_pair
from tests.refusals import refusal


def test_a_pair_has_one_id_and_the_private_key_is_for_its_owner_only(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path / "new")
    assert SigningKey.read(private).id == PublicKey.read(public).id
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    content = private.read_bytes()
    assert "is there already: a key is never replaced" in refusal(lambda: new_key(private))
    public.unlink()
    assert "is there already" in refusal(lambda: new_key(private))
    assert not public.exists()  # not one of another pair
    assert private.read_bytes() == content


def test_what_is_no_usable_key_is_refused(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    elliptic = generate_private_key(SECP256R1())
    other, encrypted = tmp_path / "ec.pem", tmp_path / "encrypted.pem"
    other.write_bytes(
        elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    encrypted.write_bytes(
        elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    )
    large = tmp_path / "large.pem"
    large.write_bytes(bytes(100_000))
    assert "expected Ed25519" in refusal(lambda: SigningKey.read(other))
    assert "can't be used" in refusal(lambda: SigningKey.read(encrypted))
    assert "can't be used" in refusal(lambda: SigningKey.read(public))
    assert "can't be used" in refusal(lambda: PublicKey.read(private))
    assert "can't be read: No such file" in refusal(lambda: PublicKey.read(tmp_path / "none"))
    assert "larger than" in refusal(lambda: PublicKey.read(large))
