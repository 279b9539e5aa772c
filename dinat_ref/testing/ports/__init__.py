"""Kernels that are called in another way: adapters, other people's packages, and golden files for all the rest."""
