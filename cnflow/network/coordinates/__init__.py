"""Preferred coordinates: kurtosis, alignment with the input, and measures under other coordinates."""
