"""Checks before training: text, tokenizer, memory, disk and devices."""
