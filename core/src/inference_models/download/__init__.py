"""How the files of a model come here and are kept: downloads, their cache, web APIs."""
