"""Every exception ends as one message and one exit status."""

import errno
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sparsec.compiler import errors
from sparsec.compiler.cli import main
from sparsec.compiler.cli.failure import describe_failure, printable


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.UsageError, 2),
        (errors.ModelError, 3),
        (errors.StreamError, 3),
        (errors.UnsupportedError, 4),
        (errors.VerificationError, 5),
        (errors.ToolchainError, 6),
        (errors.LimitError, 7),
    ],
)
def test_an_error_of_ours_is_its_sentence_and_its_status(kind: type[errors.SparsecError], status: int) -> None:
    assert describe_failure(kind("node 'a' is odd"), []) == ("error: node 'a' is odd", status)


def test_other_ends() -> None:
    assert describe_failure(KeyboardInterrupt(), []) == ("interrupted", 130)
    assert describe_failure(MemoryError(), [])[1] == 7
    denied = PermissionError(errno.EACCES, "Permission denied", "out/x.c")
    assert describe_failure(denied, []) == ("error: out/x.c: Permission denied", 2)
    full = OSError(errno.ENOSPC, "No space left on device", "out/x.c")
    assert describe_failure(full, []) == ("error: out/x.c: No space left on device", 7)


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31m\r\x00b\u202e\n") == "a\\x1b[31m\\r\\x00b\\u202e\n"
    message, _ = describe_failure(errors.ModelError("node \x1b]0;owned\x07"), [])
    assert message == "error: node \\x1b]0;owned\\x07"


@pytest.mark.parametrize("exc", [ZeroDivisionError("no way"), errors.InternalError("no way"), FileNotFoundError("no way")])
def test_a_defect_leaves_a_reproducer(exc: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    try:
        raise exc
    except Exception as caught:
        message, status = describe_failure(caught, ["compile", "m.onnx", "--name", "a b"])
    assert status == 70 and message.count("\n") == 0
    assert message.startswith(f"error: internal: {type(exc).__name__}: no way (a defect of sparsec: please report it with ")
    folder = next(tmp_path.glob("sparsec-reproducer-*"))
    assert str(folder) in message
    cd, command = (folder / "command.txt").read_text().splitlines()
    assert shlex.split(cd) == ["cd", str(tmp_path)]
    assert shlex.split(command) == ["sparsec", "compile", "m.onnx", "--name", "a b"]
    assert "test_a_defect_leaves_a_reproducer" in (folder / "traceback.txt").read_text()
    assert (folder / "0-m.onnx").read_bytes() == b"model"
    assert "numpy 2" in (folder / "versions.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compil"], "error: no such command 'compil'"),
        (["compile"], "error: missing argument"),
        (["compile", "m.onnx", "--threads", "many"], "error: invalid value for '--threads'"),
        (["compile", "m.onnx", "--nonsense"], "error: no such option: --nonsense"),
        (["compile", "m.onnx", "--weights", "gzip"], "error: invalid value for '--weights'"),
        (["compile", "m.onnx", "--dim", "batch"], "error: --dim takes NAME=N, as batch=1, not 'batch'"),
        (["compile", "m.onnx", "--max-arena", "lots"], "error: --max-arena takes a number"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1


def test_a_closed_pipe_ends_quietly() -> None:
    script = "import sys; from sparsec.compiler.cli import main; sys.exit(main(['ops']))"
    done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.stdout is not None and done.stderr is not None
    done.stdout.close()
    assert done.stderr.read() == b""
    assert done.wait() == 141
