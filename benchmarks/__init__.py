"""Speed, memory and quality of this toolkit beside its peers, measured in one run on one machine.

`make bench` runs everything, `python -m benchmarks PART` one part. Each part keeps its figures in results/PART.json,
and docs/benchmarks.md is rendered from these files alone.
"""
