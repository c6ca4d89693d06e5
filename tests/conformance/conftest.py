"""Every case runs on a plain directory and on mounts of both trees by both engines."""

from tests.support.systems import root, system

__all__ = ["root", "system"]
