"""The checks, a file for each kind, with what they pose (enumeration, sampling) and measure by (plain, yardstick)."""
