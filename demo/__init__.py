"""The demonstration: real data through the whole pipeline. Not part of the wheel."""
