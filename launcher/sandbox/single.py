"""Where one id is mapped: settings for programs that look whether they became somebody else, and give up.

Changes of ids are answered with success there and do nothing (`seccomp`). Most programs are content with that.
"""

from __future__ import annotations

import os

from launcher.sandbox import syscalls
from launcher.sandbox.paths import Targets

# apt downloads as _apt, and reads its ids back afterwards: "Could not switch group".
_APT = "/etc/apt/apt.conf.d/99ufs-one-id"
_SETTING = b'// One id is mapped in this container (ufs).\nAPT::Sandbox::User "root";\n'


class Settings:
    """Bound over the container's root, where what they are for is there. Taken while the host's side can be seen."""

    def __init__(self, directory: str) -> None:
        path = f"{directory}/apt.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.write(descriptor, _SETTING)
        os.close(descriptor)
        self._tree = syscalls.clone_tree(path)

    def attach(self, targets: Targets) -> None:
        """To be called once."""
        if os.path.isdir(os.path.dirname(_APT)):
            target = targets.own_file(_APT)
            if target is not None:
                syscalls.attach(self._tree, target)
                os.close(target)
        os.close(self._tree)
