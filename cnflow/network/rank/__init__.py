"""Rank and factorization of the map between two layers."""
