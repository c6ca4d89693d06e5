"""From the text of a template to a tree: Go's text/template, its lexer and parser in small."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from launcher.errors import UfsError


class Operand(NamedTuple):
    """`kind`: "field" (`value` is the dot's or the variable's name, or a Pipeline), "literal", "function"."""

    kind: str
    value: Any
    fields: tuple[str, ...] = ()


class Pipeline(NamedTuple):
    """Commands, each a list of operands: the result of one is the last argument of the next. `declares`: variables."""

    declares: tuple[str, ...]
    assigns: bool
    commands: tuple[tuple[Operand, ...], ...]


class Action(NamedTuple):
    """Shows a pipeline; `None` is a `break` or `continue`, named by `word`."""

    pipeline: Pipeline | None
    word: str = ""


class Block(NamedTuple):
    """`if`, `range` or `with`, its body and what follows `else`."""

    word: str
    pipeline: Pipeline
    body: list[Any]
    otherwise: list[Any]


_ACTION = re.compile(r'\{\{(?:-(?=\s))?((?:"(?:\\.|[^"\\])*"|`[^`]*`|/\*.*?\*/|(?!\}\}).)*)\}\}', re.S)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\$\w*)?(?:\.\w+)+|\$\w*|\.)
    |(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|=|\||\(|\)|,))""",
    re.X,
)


def fail(text: str, why: str) -> UfsError:
    """The one line for a template that is not understood."""
    return UfsError(f"--format {text!r}: {why}")


def parse(text: str) -> list[Any]:
    """The nodes: strings, `Action` and `Block`. UfsError for what is not understood."""
    parser = _Parser(text)
    nodes, word = parser.nodes()
    if word:
        raise fail(text, f"{{{{{word}}}}} without a beginning")
    return nodes


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces = self._split(text)

    def _split(self, text: str) -> Iterator[tuple[bool, str]]:
        """(whether it is an action, text), with white space taken away where actions ask for it."""
        place, trim = 0, False
        for match in _ACTION.finditer(text):
            plain = text[place : match.start()]
            plain = plain.lstrip() if trim else plain
            plain = plain.rstrip() if match[0].startswith("{{-") else plain
            inner = match[1]
            trim = bool(re.search(r"\s-$", inner))
            if plain:
                yield False, plain
            yield True, inner[:-1].strip() if trim else inner.strip()
            place = match.end()
        rest = text[place:]
        if "{{" in rest:
            raise fail(text, "an action that begins with {{ has no end")
        if rest:
            yield False, rest.lstrip() if trim else rest

    def nodes(self) -> tuple[list[Any], str]:
        """Up to the next `end` or `else`, which is the second of the result, or to the end of the text."""
        found: list[Any] = []
        for is_action, piece in self._pieces:
            if not is_action:
                found.append(piece)
                continue
            word = piece.split(None, 1)[0] if piece else ""
            if word in ("end", "else"):
                return found, piece
            if word in ("if", "range", "with"):
                found.append(self._block(word, piece[len(word) :]))
            elif word in ("break", "continue"):
                found.append(Action(None, word))
            elif not piece.startswith("/*"):
                found.append(Action(self._pipeline(piece)))
        return found, ""

    def _block(self, word: str, rest: str) -> Block:
        pipeline = self._pipeline(rest)
        body, stop = self.nodes()
        otherwise: list[Any] = []
        if stop.startswith("else"):
            follows = stop[4:].strip()
            if follows:
                inner = follows.split(None, 1)[0]
                if inner not in ("if", "with"):
                    raise fail(self._text, f"{{{{{stop}}}}} is not understood")
                otherwise = [self._block(inner, follows[len(inner) :])]
                stop = "end"
            else:
                otherwise, stop = self.nodes()
        if stop != "end":
            raise fail(self._text, f"{{{{{word}}}}} has no {{{{end}}}}")
        return Block(word, pipeline, body, otherwise)

    def _pipeline(self, text: str) -> Pipeline:
        tokens = self._tokens(text)
        declares, assigns = self._declared(tokens)
        found = self._commands(tokens)
        if tokens:
            raise fail(self._text, f"unexpected {tokens[0][1]!r}")
        return Pipeline(declares, assigns, found)

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        found, place = [], 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise fail(self._text, f"unexpected {text[place:].strip()[:10]!r}")
            found.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()
        return found

    def _declared(self, tokens: list[tuple[str, str]]) -> tuple[tuple[str, ...], bool]:
        """Take `$x :=`, `$x =` or `$i, $x :=` off the front."""
        for sign in (":=", "="):
            if ("mark", sign) in tokens:
                place = tokens.index(("mark", sign))
                names = [value for kind, value in tokens[:place] if (kind, value) != ("mark", ",")]
                if not names or len(names) > 2 or not all(re.fullmatch(r"\$\w+", name) for name in names):
                    raise fail(self._text, f"only variables can stand before {sign}")
                del tokens[: place + 1]
                return tuple(names), sign == "="
        return (), False

    def _commands(self, tokens: list[tuple[str, str]]) -> tuple[tuple[Operand, ...], ...]:
        commands: list[tuple[Operand, ...]] = []
        while True:
            operands: list[Operand] = []
            while tokens and tokens[0] not in (("mark", "|"), ("mark", ")")):
                operands.append(self._operand(tokens))
            if not operands:
                raise fail(self._text, "there is nothing to show between {{ and }}, before or after a | or in ()")
            commands.append(tuple(operands))
            if not tokens or tokens[0] != ("mark", "|"):
                return tuple(commands)
            tokens.pop(0)

    def _operand(self, tokens: list[tuple[str, str]]) -> Operand:
        kind, value = tokens.pop(0)
        if kind == "string":
            return Operand("literal", value[1:-1] if value[0] == "`" else self._unquoted(value))
        if kind == "number":
            return Operand("literal", float(value) if "." in value else int(value))
        if kind == "field":
            root, *fields = value.split(".") if value != "." else [""]
            return Operand("field", root, tuple(fields))
        if kind == "word":
            literals = {"true": True, "false": False, "nil": None}
            return Operand("literal", literals[value]) if value in literals else Operand("function", value)
        if value != "(":
            raise fail(self._text, f"unexpected {value!r}")
        inner = Pipeline((), False, self._commands(tokens))
        if not tokens or tokens.pop(0) != ("mark", ")"):
            raise fail(self._text, "a ( has no )")
        chain: tuple[str, ...] = ()
        if tokens and tokens[0][0] == "field" and tokens[0][1].startswith(".") and tokens[0][1] != ".":
            chain = tuple(tokens.pop(0)[1][1:].split("."))
        return Operand("field", inner, chain)

    def _unquoted(self, text: str) -> str:
        try:
            return str(json.loads(text))
        except ValueError as error:
            raise fail(self._text, f"{text} is no string") from error
