"""Docker's `--flag=true` and `--flag=false`, which click's flags do not take, in click's words."""

from __future__ import annotations

import click

from launcher.cli import options


def rewritten(command: click.Command, arguments: list[str]) -> list[str]:
    """The same command line with `--flag` for `--flag=true` and nothing for `--flag=false`; the last one counts.

    Values of options and what follows the options of a command that ends them are left alone. `UfsError` (status 125)
    for another value.
    """
    flags: dict[str, list[str]] = {}
    valued: set[str] = set()
    for option in command.params:
        if isinstance(option, click.Option) and option.is_flag:
            flags.update(dict.fromkeys(option.opts, option.opts))
        elif isinstance(option, click.Option) and not option.count:
            valued.update(option.opts)
    anywhere = command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args)
    found: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or not (word.startswith("-") or anywhere):
            return [*found, word, *rest]
        name, equals, value = word.partition("=")
        if equals and name in flags:
            found = [other for other in found if other not in flags[name]]
            found += [name] if options.boolean(name, value) else []
            continue
        found.append(word)
        if word in valued and rest:
            found.append(rest.pop(0))
    return found
