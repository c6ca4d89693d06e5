"""The files below /etc that every container gets of its own: they are bound over those of the image."""

from __future__ import annotations

_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def write(directory: str, hostname: str) -> None:
    """resolv.conf, hosts and hostname in the container's directory.

    The network is the host's, so its resolver is reachable at the very address that the host's file names, also
    on the loopback device.
    """
    _write(f"{directory}/resolv.conf", _host_file("/etc/resolv.conf"))
    _write(f"{directory}/hosts", f"{_HOSTS}{_other_hosts()}127.0.1.1\t{hostname}\n")
    _write(f"{directory}/hostname", f"{hostname}\n")


def _other_hosts() -> str:
    """The host's own lines but those for the loopback device: they name what is reachable from here too."""
    lines = _host_file("/etc/hosts").splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "127.", "::1", "f"))]
    return "".join(f"{line}\n" for line in kept)


def _host_file(path: str) -> str:
    """Links are followed on the host. A machine may have none (no network): then the container's is empty."""
    try:
        with open(path, errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", errors="surrogateescape", opener=_private_until_bound) as stream:
        stream.write(text)


def _private_until_bound(path: str, flags: int) -> int:
    import os

    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    os.fchmod(descriptor, 0o644)  # whatever the umask: every user of the container reads them
    return descriptor
