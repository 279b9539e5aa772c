"""Numbers about attention and models, computed and never drawn here."""
