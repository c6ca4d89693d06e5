"""Whose certificates count: the system's, and those of ``certs.d`` (containers-certs.d(5); Docker has the same).

``*.crt`` are authorities, ``NAME.cert`` with ``NAME.key`` is who we are.
"""

from __future__ import annotations

import os
import ssl

from launcher.errors import UfsError

_CERTS = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def context(host: str, insecure: bool) -> ssl.SSLContext:
    """For connections to `host`, as HOST[:PORT]. UfsError for files that are no certificates."""
    made = ssl.create_default_context()
    if not made.get_ca_certs() and not ssl.get_default_verify_paths().capath:
        import certifi  # a system without authorities of its own

        made.load_verify_locations(certifi.where())
    for directory in _directories(host):
        _load(made, directory)
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _directories(host: str) -> list[str]:
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "containers", "certs.d")
    return [path for place in (*_CERTS, own) if os.path.isdir(path := f"{place}/{host}")]


def _load(made: ssl.SSLContext, directory: str) -> None:
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        try:
            if name.endswith(".crt"):
                made.load_verify_locations(path)
            elif name.endswith(".cert"):
                made.load_cert_chain(path, path.removesuffix(".cert") + ".key")
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            raise UfsError(f"{path} cannot be used as a certificate: {reason}") from None
