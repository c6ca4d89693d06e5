"""Names and ids of containers."""

from __future__ import annotations

import os

from launcher.errors import UfsError

# Split where they are used: only a container without --name needs them.
_ADJECTIVES = """
amber brisk calm clever crisp dapper eager early fair fleet fond frank gentle glad golden grand happy hardy honest
humble jolly keen kind late lively loyal lucid mellow merry mild modest neat nimble noble patient plain polite proud
quick quiet rapid ready robust rosy royal serene sharp silent simple sleek smooth snug sober solid steady still stout
sunny swift tidy trusty vivid warm wise
"""
_NOUNS = """
acorn alder anchor badger barley beacon birch bison bramble brook canyon cedar clover comet coral crane dale delta dune
ember falcon fern finch fjord garnet glacier grove harbor hazel heron heath ivy jasper juniper kestrel lagoon lantern
larch linden lynx maple meadow mesa moss oak opal orchid otter pebble pine plover quartz raven reed river robin rowan
sable sparrow spruce stork thistle willow wren
"""
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def new_id() -> str:
    """64 hexadecimal digits."""
    return os.urandom(32).hex()


def proposals() -> list[str]:
    """A few random names, the later the longer, for the caller to take the first that is free."""
    adjectives, nouns, draws = _ADJECTIVES.split(), _NOUNS.split(), os.urandom(16)
    halves = zip(draws[::2], draws[1::2], strict=True)
    pairs = [f"{adjectives[one % len(adjectives)]}_{nouns[two % len(nouns)]}" for one, two in halves]
    return [*pairs, f"{pairs[0]}_{draws.hex()}"]


def checked(name: str) -> str:
    """`name` if a container may be called that."""
    if len(name) < 2 or len(name) > 128 or not set(name) <= _ALLOWED or name[0] in "_.-":
        raise UfsError(
            f"--name {name!r}: a name has 2 to 128 letters, digits, '_', '.' or '-' and begins with a letter or digit",
            125,
        )
    return name
