"""How other programs build with the streams: a library that holds them, its header, and rules for Make and CMake.

NAME_streams.S          puts every stream into an object file
NAME_streams.h          their symbols and sizes, the order of arguments, and where values are in the activations
Makefile                libNAME_streams.a, and a target that copies the streams
CMakeLists.txt          the same for CMake
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sparsec.backends.aie.templating import environment
from sparsec.backends.naming import comment, identifier, identifiers

_ARGUMENTS = ("WEIGHTS", "ACTIVATIONS")  # in the order of their numbers in control streams
_FIELDS = ("channels", "rows", "columns", "top", "left", "height", "width")


@dataclass(frozen=True, slots=True)
class Stream:
    """A file that is embedded: its path in the folder, its symbol in C, and its size."""

    path: str
    symbol: str
    bytes: int


def rules(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files by name, for a manifest and the files that it names; none where no part is on the array."""
    name = identifier(manifest["name"])
    streams = _streams(name, manifest, files)
    if not streams:
        return {}
    values = list(manifest["images"])
    context = {
        "name": name,
        "macro": name.upper(),
        "machine": comment(manifest["machine"]["name"]),
        "arguments": _ARGUMENTS,
        "activation_bytes": manifest["activation_bytes"],
        "fields": _FIELDS,
        "images": [
            {"macro": macro.upper(), "image": manifest["images"][v]} for v, macro in zip(values, identifiers(values), strict=True)
        ],
        "streams": streams,
        "folders": sorted({str(PurePosixPath(s.path).parent) for s in streams}),
    }
    templates = {
        f"{name}_streams.S": "streams.S.j2",
        f"{name}_streams.h": "streams.h.j2",
        "Makefile": "Makefile.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
    }
    return {file: environment().get_template(t).render(context).encode() for file, t in templates.items()}


def _streams(name: str, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> list[Stream]:
    """Those of parts in order, then the cores' programs."""
    named = [part[kind] for part in manifest["parts"] if part["kind"] == "array" for kind in ("control", "weights")]
    named += [path for path in files if path.startswith("core_") and path.endswith(".bin")] if named else []
    return [Stream(path, f"{name}_{identifier(path.removesuffix('.bin'))}", len(files[path])) for path in named]
