"""How fast, and with how much memory: every formulation and every installed peer, measured in one run."""
