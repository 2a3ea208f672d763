"""The version of the toolkit, which even the lowest modules may import."""

__version__ = "0.1.0"
