"""`python -m pipeline worker`: the same as `faust -A pipeline worker`."""

from __future__ import annotations

from pipeline import app

if __name__ == "__main__":
    app.main()
