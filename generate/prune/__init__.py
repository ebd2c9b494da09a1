"""From a network to its groups, its exact costs and its cuts."""
