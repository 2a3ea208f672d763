"""`python -m nmt` is `nmt`."""

import sys


def main() -> None:
    """Runs the command line, which is imported here, so that Ctrl-C meanwhile causes no traceback."""
    try:
        from nmt.cli.main import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
