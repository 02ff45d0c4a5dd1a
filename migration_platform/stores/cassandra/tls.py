"""The files of a store's TLS block; one that cannot be used is named by its attribute."""

import ssl
from pathlib import Path

from migration_platform.errors import PreflightError


def build_context(
    *,
    ca_file: str | None,
    certificate_file: str | None,
    key_file: str | None,
    check_hostname: bool,
) -> ssl.SSLContext:
    """Build the context of a connection. Without `ca_file` the system's authorities are trusted.

    Raises:
        PreflightError: a file is missing, or does not hold what it should.
    """
    files = {"ca_file": ca_file, "certificate_file": certificate_file, "key_file": key_file}
    for attribute, path in files.items():
        if path is not None:
            _read(attribute, path)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise _refusal("ca_file", f"{ca_file} holds no certificate in PEM form") from None
    context.check_hostname = check_hostname
    if certificate_file is None:
        return context
    try:
        # Without a password here, OpenSSL would wait for somebody to type that of a locked key.
        context.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        if b"BEGIN CERTIFICATE" not in _read("certificate_file", certificate_file):
            told = f"{certificate_file} holds no certificate in PEM form"
            raise _refusal("certificate_file", told) from None
        if error.reason == "KEY_VALUES_MISMATCH":
            told = f"{key_file or certificate_file} is not the key of tls.certificate_file"
        else:
            told = f"{key_file or certificate_file} holds no key in PEM form without a passphrase"
        raise _refusal("key_file", told) from None
    return context


def _read(attribute: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        told = f"{path} cannot be read: {error.strerror or type(error).__name__}"
        raise _refusal(attribute, told) from None


def _refusal(attribute: str, told: str) -> PreflightError:
    return PreflightError(f"cannot use the TLS files: tls.{attribute}: {told}")
