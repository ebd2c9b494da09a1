"""From draws to what users read off a fit."""
