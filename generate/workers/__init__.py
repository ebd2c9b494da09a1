"""Who trains: local processes, or the actors of a Ray cluster."""
