"""Run the command line and turn whatever it raises into one message and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sparsec.compiler.cli.failure import describe_failure


def run(argv: Sequence[str] | None = None) -> int:
    """Parse and run; 0 when it went well, else the status that docs/guide.md lists."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from sparsec.compiler.cli.app import command

        result = command().main(args=arguments, prog_name="sparsec", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (BrokenPipeError, SystemExit):  # typer turns the first into the second, and raises it for nothing else
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains when it flushes
        return 141  # 128 + SIGPIPE, as from a shell
    except (Exception, KeyboardInterrupt) as exc:
        message, status = describe_failure(exc, arguments)
        if message:
            print(message, file=sys.stderr)
        return status
