"""From rows to draws: cross-products, curves, the exact and the sampled posterior, diagnostics."""
