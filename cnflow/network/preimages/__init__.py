"""Level sets of the maps of a network, continuous and discrete."""
