"""Sensitivity of coordinates to changes of the parameters that keep the function."""
