"""What to do next: widths for a budget, refined spaces, sample sizes, error rates."""
