"""A Django application whose events commit or vanish with its own transactions (S11)."""
