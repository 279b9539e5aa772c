"""Drawings, with matplotlib: every function takes and returns an Axes, and none of them shows or saves anything."""
