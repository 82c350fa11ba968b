"""Closed curves: ridges of densities, polygons, crossings, knot invariants."""
