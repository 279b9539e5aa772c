"""The folder that ``dinat-ref run`` puts on PYTHONPATH."""
