"""Backends Isthmus can stand in front of: one file per kind, its name is the kind's name."""
