"""Densities, the mass axis, and how well a density is known."""
