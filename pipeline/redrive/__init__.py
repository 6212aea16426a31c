"""Dead letters as an operator sees them: an index of all of them, and putting them right (Q3, Q5, O2)."""
