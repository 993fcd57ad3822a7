"""Modules of sabotages by what the tests are about; importing one registers its sabotages and applies none."""
