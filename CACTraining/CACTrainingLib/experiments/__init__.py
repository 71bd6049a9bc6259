"""How the cells of an experiment are run."""
