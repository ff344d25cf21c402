"""Certificates of a private authority, made for one test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def issue(folder: Path, name: str = "127.0.0.1", *, days: int = 1) -> tuple[Path, Path]:
    """Files of a private authority and of a certificate with key that it signed, for an address or a host name. It ends
    in so many days; less than 0: it has ended."""
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "private authority")])
    now = datetime.now(UTC)

    def build(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
        )

    root = build(authority, authority_key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    try:
        bears: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        bears = x509.DNSName(name)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    leaf = build(subject, server_key).add_extension(x509.SubjectAlternativeName([bears]), False)
    ca, server = folder / "ca.pem", folder / "server.pem"
    ca.write_bytes(root.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server.write_bytes(key + leaf.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return ca, server
