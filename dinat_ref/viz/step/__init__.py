"""Stepping through real code: a recorded run as a page, as text, or as a strip of pictures."""
