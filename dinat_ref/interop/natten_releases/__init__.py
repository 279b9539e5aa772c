"""One module for each release of NATTEN that is served, with what is its own; all names: ``natten_surface``."""
