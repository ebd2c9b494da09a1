"""From a plan to the worklist: budgets, spaces, recipes."""
