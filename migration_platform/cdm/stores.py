"""The clusters that a file names, as stores: hosts, credentials and TLS."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from migration_platform.cdm.properties import PREFIX, PROPERTIES
from migration_platform.cdm.settings import CDM, Settings


def to_store(settings: Settings, side: str, name: str, variables: dict[str, str]) -> dict[str, Any]:
    """Give a side's store as YAML has it.

    The environment variable of its password is added to `variables`, with whose password it holds.
    """
    at = f"connect.{side}."
    hosts, port = read_hosts(settings, (f"{at}host",), f"{at}port")
    store: dict[str, Any] = {"contact_points": hosts, "port": port}
    if settings.text(f"{at}local_dc"):
        store["local_datacenter"] = settings.text(f"{at}local_dc")
    add_login(settings, at, store, name, variables)
    is_tls = settings.flag(f"{at}tls.enabled")
    if is_tls:
        store["tls"] = _tls(settings, at)
    else:
        for part in ("trustStore.path", "keyStore.path"):
            if settings.given(f"{at}tls.{part}"):
                settings.note(f"{PREFIX}{at}tls.{part} does nothing while tls.enabled is false.")
    return store


def add_login(
    settings: Settings, at: str, store: dict[str, Any], name: str, variables: dict[str, str]
) -> None:
    """Add the user name, and the variable that is to hold the password, to a store."""
    if settings.text(f"{at}username"):
        store["username"] = settings.text(f"{at}username")
        variable = f"{name}_password".upper()
        store["password"] = {"env": variable}
        variables[variable] = (
            f"the password of {PREFIX}{at}username"
            if settings.given(f"{at}password")
            else f"the password of {PREFIX}{at}username; the file has none, and the default of "
            f"{CDM} is the word {PROPERTIES[f'{at}password'].default}"
        )
    elif settings.given(f"{at}password"):
        settings.note(f"{PREFIX}{at}password does nothing without a username.")


def read_hosts(settings: Settings, names: Sequence[str], port_name: str) -> tuple[list[str], int]:
    """Give the hosts of properties, host or host:port with commas between them, and their port."""
    default = settings.number(port_name) or 0
    hosts, ports = [], set()
    for name, text in _each_host(settings, names):
        found = re.fullmatch(
            r"\s*(?:\[([^\]\s]+)\]|([^:\s]+)|([^:\s]*:[^\s]*:[^\s]*))(?::([0-9]{1,9}))?\s*", text
        )
        if not found or not (found[1] or found[2] or found[3]):
            settings.wrong.append(f"{PREFIX}{name} must be hosts with commas between them")
            continue
        hosts.append(found[1] or found[2] or found[3])
        ports.add(int(found[4] or default))
    if len(ports) > 1:
        settings.wrong.append(
            f"{PREFIX}{names[0]} names several ports; a cluster has one, so name hosts of one port"
        )
    port = ports.pop() if ports else default
    if not 1 <= port <= 65_535:
        settings.wrong.append(f"{PREFIX}{port_name} must be from 1 to 65535")
    return hosts, port


def _each_host(settings: Settings, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        text = settings.text(name) or PROPERTIES[name].default
        for each in text.split(",") if text else ():
            yield name, each


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
