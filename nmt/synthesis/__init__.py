"""Synthetic training text: translations by a model that another model then learns from."""
