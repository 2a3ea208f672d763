"""Runs the demonstration: `python scripts/demo.py`."""

from pathlib import Path

import typer

from nmt.cli.main import main
from nmt.demo.run import run_demo

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def demo(config: Path = Path("configs/demo.yaml"), seed: int = 1) -> None:
    """Makes a corpus, trains, scores, exports and translates."""
    run_demo(config, seed=seed, announce=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(app)
