"""One module of sabotages for each module of tests; importing one registers its sabotages and applies none."""
