"""`python -m sparsec.compiler.cli` is `sparsec`."""

from sparsec.compiler.cli import main

raise SystemExit(main())
