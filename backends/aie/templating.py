"""The jinja2 environment of the array's templates: programs of cores, build rules."""

from __future__ import annotations

from functools import cache

import jinja2


@cache
def environment() -> jinja2.Environment:
    """Undefined names are errors, block tags leave no blank lines. It keeps its templates compiled, which takes far longer than
    to fill one in."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("sparsec.templates", "aie"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
