"""Neighborhood attention over several processes; so far its plan, in integers: ``dinat_ref.parallel.plan``."""
