"""Compares speed, memory and quality of nmt with other toolkits, in one run on one machine.

`make bench` runs everything, and `python -m benchmarks PART` runs one part. Each part writes its figures to
results/PART.json. docs/explanation/benchmarks.md is rendered from these files.
"""
