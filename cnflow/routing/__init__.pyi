from ._fit import fit as fit
