"""What came of a run: results, their HTML page, the drawing of a failure, and what it looks like in words."""
