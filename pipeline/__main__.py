"""`python -m pipeline outbox ...` for services; else the same as `faust -A pipeline`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["outbox"]:  # a service's install has no Faust
        from pipeline.outbox_commands import main

        sys.exit(main(sys.argv[2:]))
    from pipeline import app

    app.main()
