"""The clusters that a file names, as stores: hosts, credentials and TLS."""

import re
from pathlib import Path
from typing import Any

from migration_platform.cdm.properties import PREFIX
from migration_platform.cdm.settings import CDM, Settings


def to_store(settings: Settings, side: str, name: str, variables: dict[str, str]) -> dict[str, Any]:
    """Give a side's store as YAML has it.

    The environment variable of its password is added to `variables`, with whose password it holds.
    """
    at = f"connect.{side}."
    hosts, port = _contact_points(settings, at)
    store: dict[str, Any] = {"contact_points": hosts, "port": port}
    if settings.text(f"{at}local_dc"):
        store["local_datacenter"] = settings.text(f"{at}local_dc")
    if settings.text(f"{at}username"):
        store["username"] = settings.text(f"{at}username")
        variable = f"{name}_password".upper()
        store["password"] = {"env": variable}
        variables[variable] = (
            f"the password of {PREFIX}{at}username"
            if settings.given(f"{at}password")
            else f"the password of {PREFIX}{at}username; the file has none, and the default of "
            f"{CDM} is the word cassandra"
        )
    elif settings.given(f"{at}password"):
        settings.note(f"{PREFIX}{at}password does nothing without a username.")
    is_tls = settings.flag(f"{at}tls.enabled")
    if is_tls:
        store["tls"] = _tls(settings, at)
    else:
        for part in ("trustStore.path", "keyStore.path"):
            if settings.given(f"{at}tls.{part}"):
                settings.note(f"{PREFIX}{at}tls.{part} does nothing while tls.enabled is false.")
    return store


def _contact_points(settings: Settings, at: str) -> tuple[list[str], int]:
    default = settings.number(f"{at}port") or 0
    hosts, ports = [], set()
    for text in (settings.text(f"{at}host") or "localhost").split(","):
        found = re.fullmatch(
            r"\s*(?:\[([^\]\s]+)\]|([^:\s]+)|([^:\s]*:[^\s]*:[^\s]*))(?::([0-9]{1,9}))?\s*", text
        )
        if not found or not (found[1] or found[2] or found[3]):
            settings.wrong.append(f"{PREFIX}{at}host must be hosts with commas between them")
            continue
        hosts.append(found[1] or found[2] or found[3])
        ports.add(int(found[4] or default))
    if len(ports) > 1:
        settings.wrong.append(
            f"{PREFIX}{at}host names several ports; a cluster has one, so name hosts of one port"
        )
    port = ports.pop() if ports else default
    if not 1 <= port <= 65_535:
        settings.wrong.append(f"{PREFIX}{at}port must be from 1 to 65535")
    return hosts, port


def _tls(settings: Settings, at: str) -> dict[str, str]:
    tls = {}
    trust, key = settings.text(f"{at}tls.trustStore.path"), settings.text(f"{at}tls.keyStore.path")
    if trust:
        tls["ca_file"] = _as_pem(trust, "")
        if tls["ca_file"] != trust:
            settings.note(
                f"{PREFIX}{at}tls.trustStore.path becomes a PEM file: keytool -list -rfc "
                f"-keystore {trust} > {tls['ca_file']}"
            )
    if key:
        tls["certificate_file"] = _as_pem(key, "-certificate")
        tls["key_file"] = _as_pem(key, "-key")
        settings.note(
            f"{PREFIX}{at}tls.keyStore.path becomes two PEM files: keytool -importkeystore "
            f"-srckeystore {key} -destkeystore {key}.p12 -deststoretype PKCS12, then openssl "
            f"pkcs12 -in {key}.p12 -clcerts -nokeys -out {tls['certificate_file']}, and openssl "
            f"pkcs12 -in {key}.p12 -nocerts -nodes -out {tls['key_file']} (mode 600)."
        )
    settings.note(
        f"{PREFIX}{at}tls.enabled: the server's name must match its certificate; where it does "
        "not, set check_hostname: false in the store's tls."
    )
    return tls


def _as_pem(path: str, part: str) -> str:
    """Name the PEM file that a Java key store is to become."""
    plain = Path(path.removeprefix("file://"))
    if plain.suffix.lower() in (".pem", ".crt") and not part:
        return str(plain)
    return str(plain.with_name(f"{plain.stem}{part}.pem"))
