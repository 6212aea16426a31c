"""Tools for developing and testing Stagepost; never part of the wheel."""
