"""Whom we believe to be vCenter or a host: one certificate that is pinned, or those that an authority signed.

pyvmomi looks at its own pin only after the usual check has failed, and forgets it for localhost or when checks are
off; version discovery does not use it at all. So the certificate is fetched once and compared here, and one SSL context
that trusts that certificate and no other serves all that talks to the host: SOAP, uploads and files of a datastore.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl

from importers.vmware.proxy import Proxy
from pipeline.errors import TargetMismatch, TargetUnavailable, UsageError

CONNECT_SECONDS = 20.0
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h: a pin stands for itself; a site that is just being repaired may have
lost its clock, and certificates of vSphere that ended long ago are found everywhere."""


def fetch_certificate(host: str, port: int, proxy: Proxy, seconds: float = CONNECT_SECONDS) -> bytes:
    """What the host shows, DER, believed by nobody yet. Raises TargetUnavailable."""
    unbelieving = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unbelieving.check_hostname = False
    unbelieving.verify_mode = ssl.CERT_NONE
    where = show(host, port)
    try:
        with (
            _connect(host, port, proxy, seconds) as plain,
            unbelieving.wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        raise TargetUnavailable(
            f"{where} does not speak TLS with us: {error.reason or error}", remedy="check the address and the port"
        ) from error
    except OSError as error:
        raise unreachable(where, error, proxy if proxy.serves(host) else None) from error
    if certificate is None:
        raise TargetUnavailable(f"{where} shows no certificate", remedy="check the address and the port")
    return certificate


def pinned_context(host: str, port: int, fingerprint: str, proxy: Proxy) -> ssl.SSLContext:
    """Trusts the one certificate with this fingerprint: hexadecimal digits, 64 of SHA-256; or 40 of SHA-1, which is
    what vCenter itself says about its hosts. Raises TargetMismatch with the fingerprint that was seen."""
    certificate = fetch_certificate(host, port, proxy)
    seen = hashlib.sha256(certificate).hexdigest()
    wanted = fingerprint.replace(":", "").lower()
    if wanted != (seen if len(wanted) == 64 else hashlib.sha1(certificate).hexdigest()):
        kind = "SHA256" if len(wanted) == 64 else "SHA1"
        raise TargetMismatch(
            f"{show(host, port)} shows another certificate than the pinned one: SHA256:{colons(seen)} was seen, "
            f"{kind}:{colons(wanted)} is expected",
            remedy="somebody may be in between. If the certificate was renewed, compare the seen fingerprint with the "
            "one that the host's own console shows, and put it into the mapping's `fingerprint`",
        )
    return trust_only(ssl.DER_cert_to_PEM_cert(certificate))


def trust_only(pem: str) -> ssl.SSLContext:
    """A context for the one server that shows this certificate. Its names and dates do not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pem)
    # PARTIAL_CHAIN: a certificate that an authority signed is an anchor as good as a self-signed one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def authorities_context(ca: str) -> ssl.SSLContext:
    """Trusts what the authorities in the file `ca` signed; empty: the system's. Names and dates count. Raises
    UsageError."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        detail = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(
            f"cannot use the authorities in {ca}: {detail}", remedy="correct `ca` in the mapping"
        ) from error


def check_certificate(host: str, port: int, context: ssl.SSLContext, proxy: Proxy) -> None:
    """A handshake and no more. Raises TargetMismatch with the fingerprint that was seen, or TargetUnavailable."""
    where = show(host, port)
    try:
        with _connect(host, port, proxy) as plain, context.wrap_socket(plain, server_hostname=host):
            return
    except ssl.SSLCertVerificationError as error:
        seen = hashlib.sha256(fetch_certificate(host, port, proxy)).hexdigest()
        raise TargetMismatch(
            f"the certificate of {where} is not trusted ({error.verify_message}): SHA256:{colons(seen)} was seen",
            remedy="compare that with the fingerprint that its own console shows, and put it into the mapping as "
            f'`fingerprint: "SHA256:{colons(seen)}"`; or name the file with the site\'s authority as `ca`',
        ) from error
    except OSError as error:
        raise unreachable(where, error, proxy if proxy.serves(host) else None) from error


def unreachable(where: str, error: OSError, proxy: Proxy | None = None) -> TargetUnavailable:
    """What it means that a connection failed. `proxy`: the one it went through, if any."""
    if isinstance(error, socket.gaierror):
        known = (
            f"the name of {where} is not known here" if proxy is None else f"the proxy {proxy.host} is not known here"
        )
        return TargetUnavailable(f"{known}: {error.strerror}", remedy="correct it, or the DNS of this host")
    reason = error.strerror or str(error) or type(error).__name__
    way = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
    return TargetUnavailable(
        f"{where} is not reached{way}: {reason}",
        remedy="check the address and the firewalls on the way (`proxy`, `no_proxy` in the mapping choose the way)",
    )


def show(host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == 443 else f"{host}:{port}"


def colons(fingerprint: str) -> str:
    """As vSphere and openssl show it."""
    upper = fingerprint.upper()
    return ":".join(upper[i : i + 2] for i in range(0, len(upper), 2))


def _connect(host: str, port: int, proxy: Proxy, seconds: float = CONNECT_SECONDS) -> socket.socket:
    if not proxy.serves(host):
        return socket.create_connection((host, port), timeout=seconds)
    tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=seconds)
    tunnel.set_tunnel(host, port)
    tunnel.connect()
    plain: socket.socket = tunnel.sock
    return plain
