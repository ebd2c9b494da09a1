"""From draws to words: verdicts on the conjectures, companions beside them, and the next space to sample."""
