"""In a terminal there are bars, boxes and colours; without one, or with NO_COLOR, there are not."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = "import sys; from sparsec.compiler.cli import main; sys.exit(main(sys.argv[1:]))"
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-9]|9[0-7])(?:;[0-9;]*)?m")


def in_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal gets of both streams."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    if "NO_COLOR" not in environment:
        settings.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=settings
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert process.wait() == 0
    return b"".join(parts).decode()


def test_progress_is_drawn_and_wiped_in_a_terminal(model: Path, tmp_path: Path) -> None:
    shown = in_terminal("compile", str(model), "-o", str(tmp_path / "out"), "--target", "generic")
    assert "compile: cc" in shown and "\x1b[2K" in shown and COLOUR.search(shown)
    assert "matches onnxruntime" in shown.rsplit("\x1b[2K", 1)[1]


def test_quiet_draws_nothing(model: Path, tmp_path: Path) -> None:
    shown = in_terminal("compile", str(model), "-o", str(tmp_path / "out"), "--target", "generic", "--no-verify", "-q")
    assert "\x1b" not in shown and shown.startswith("tiny for generic")


def test_no_color_is_respected(model: Path, tmp_path: Path) -> None:
    for arguments in (["targets"], ["--help"], ["compile", str(model), "-o", str(tmp_path / "out"), "--no-verify"]):
        shown = in_terminal(*arguments, NO_COLOR="1")
        assert shown and not COLOUR.search(shown)


def test_help_has_boxes_in_a_terminal_only() -> None:
    assert "╭" in in_terminal("--help")
    done = subprocess.run([sys.executable, "-c", SCRIPT, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.isascii() and "\x1b" not in done.stdout
