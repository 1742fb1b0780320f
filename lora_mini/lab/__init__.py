"""What is tried in the little world: trials, sweeps, opened updates, and their records."""
