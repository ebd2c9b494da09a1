"""The table, and what each of its rows is."""
