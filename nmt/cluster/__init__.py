"""Work on Ray, which is optional: a corpus translated by many workers, and a search for the best settings."""
