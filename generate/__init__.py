"""generate: makes populations of filter-pruned subnetworks.

`python -m generate.population` is the command; see ARCHITECTURE.md for the stations between a plan and a table.
"""
