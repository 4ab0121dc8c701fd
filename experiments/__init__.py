"""The top of the house: commands, recipes, grids, reports."""
