"""`--format`: the part of Go's text/template that users of docker and podman write.

Actions with fields, variables, strings, numbers, pipelines and parentheses; `if`, `else if`, `else`, `range`, `with`,
`end`, `break`, `continue`; comments; `{{-` and `-}}`. The functions are in `functions`. No nested templates.

`Template(text).render(value)`: `value` is what `json` would show: dictionaries whose keys are the fields, lists,
strings, numbers, booleans, None; a `Map` for what has keys of any kind.
"""

from launcher.cli.template.functions import Map
from launcher.cli.template.render import Template

__all__ = ["Map", "Template"]
