"""Synthetic training text: translations of a model, from which another model learns."""
