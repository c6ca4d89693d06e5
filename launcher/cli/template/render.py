"""Rendering a parsed template for a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from launcher.cli.template import functions
from launcher.cli.template.functions import BadCall, Map, shown, true
from launcher.cli.template.parse import Action, Block, Operand, Pipeline, fail, parse

Functions = dict[str, Callable[..., Any]]


class Template:
    """One template, parsed. UfsError, status 1, for what is not understood or cannot be done."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._nodes = parse(text)
        self._check(self._nodes)

    def render(self, value: Any, extra: Functions | None = None) -> str:
        """The text for one value. `extra` functions come before those that there are."""
        run = _Run(self._text, value, {**functions.FUNCTIONS, **(extra or {})})
        run.nodes(self._nodes, value)
        return "".join(run.out)

    def _check(self, nodes: Iterable[Any]) -> None:
        """Functions that do not exist are a mistake of the template, whatever it is shown for."""
        for node in nodes:
            if isinstance(node, Action | Block) and node.pipeline is not None:
                self._check_pipeline(node.pipeline)
            if isinstance(node, Block):
                self._check(node.body)
                self._check(node.otherwise)

    def _check_pipeline(self, pipeline: Pipeline) -> None:
        for command in pipeline.commands:
            for operand in command:
                if operand.kind == "function" and operand.value not in functions.FUNCTIONS:
                    raise fail(self._text, f"there is no function {operand.value!r}")
                if isinstance(operand.value, Pipeline):
                    self._check_pipeline(operand.value)


class _Leave(Exception):
    """A `break` (True) or `continue` (False) on its way to the nearest range."""


class _Run:
    def __init__(self, text: str, root: Any, known: Functions) -> None:
        self._text = text
        self._known = known
        self._variables: dict[str, Any] = {"$": root}
        self.out: list[str] = []

    def nodes(self, nodes: Iterable[Any], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, str):
                self.out.append(node)
            elif isinstance(node, Block):
                self._block(node, dot)
            elif node.pipeline is None:
                raise _Leave(node.word == "break")
            else:
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.declares:
                    self.out.append(shown(value))

    def _block(self, block: Block, dot: Any) -> None:
        outside = dict(self._variables)
        if block.word == "range":
            self._range(block, dot)
        else:
            value = self._pipeline(block.pipeline, dot)
            if true(value):
                self.nodes(block.body, value if block.word == "with" else dot)
            else:
                self.nodes(block.otherwise, dot)
        # What was declared inside ends here; what was assigned stays.
        self._variables = {name: self._variables[name] for name in outside}

    def _range(self, block: Block, dot: Any) -> None:
        declares = block.pipeline.declares
        values = self._pipeline(block.pipeline._replace(declares=()), dot)
        if isinstance(values, int) and not isinstance(values, bool):
            values = list(range(values))
        if values is not None and not isinstance(values, dict | list | tuple):
            raise fail(self._text, f"range can't iterate over {shown(values)}")
        pairs = (
            [(key, values[key]) for key in sorted(values)]
            if isinstance(values, dict)
            else list(enumerate(values or []))
        )
        for key, value in pairs:
            if declares:
                self._variables.update(zip(declares, (key, value) if len(declares) == 2 else (value,), strict=True))
            try:
                self.nodes(block.body, value)
            except _Leave as leave:
                if leave.args[0]:
                    break
        if not pairs:
            self.nodes(block.otherwise, dot)

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for number, command in enumerate(pipeline.commands):
            value = self._command(command, dot, [value] if number else [])
        for name in pipeline.declares:
            if pipeline.assigns and name not in self._variables:
                raise fail(self._text, f"there is no variable {name}")
            self._variables[name] = value
        return value

    def _command(self, command: tuple[Operand, ...], dot: Any, last: list[Any]) -> Any:
        first, *rest = command
        arguments = [self._operand(operand, dot) for operand in rest] + last
        if first.kind == "function":
            return self._call(first.value, self._known[first.value], arguments)
        value = self._operand(first, dot, called=True)
        if callable(value):
            return self._call(".".join(first.fields), value, arguments)
        if arguments:
            raise fail(self._text, f"{'.' + '.'.join(first.fields)} is not a function and takes no arguments")
        return value

    def _call(self, name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
        try:
            return function(*arguments)
        except BadCall as error:
            raise fail(self._text, str(error)) from error
        except (TypeError, AttributeError, ValueError) as error:
            raise fail(self._text, f"{name} cannot be called like that ({error})") from error

    def _operand(self, operand: Operand, dot: Any, *, called: bool = False) -> Any:
        if operand.kind == "literal":
            return operand.value
        if operand.kind == "function":
            return self._call(operand.value, self._known[operand.value], [])
        if isinstance(operand.value, Pipeline):
            value = self._pipeline(operand.value, dot)
        elif not operand.value:
            value = dot
        elif operand.value in self._variables:
            value = self._variables[operand.value]
        else:
            raise fail(self._text, f"there is no variable {operand.value}")
        for field in operand.fields:
            value = self._field(value, field)
        return value() if callable(value) and not called else value

    def _field(self, value: Any, name: str) -> Any:
        if isinstance(value, Map):
            return value.get(name)
        if isinstance(value, dict):
            if name in value:
                return value[name]
            raise fail(self._text, f"there is no field .{name}; there are {', '.join(value)}")
        raise fail(self._text, f"{shown(value)} has no field .{name}")
