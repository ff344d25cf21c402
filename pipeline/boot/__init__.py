"""Media that boot, made from a distribution's packages without root: test guests, workers, transition hosts."""
