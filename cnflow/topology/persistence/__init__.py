"""Persistent homology of level sets: components, loops and voids, with the samples that make them."""
