"""A run of real code, recorded line by line: the source, the steps, the values of its variables, and what they mean."""
