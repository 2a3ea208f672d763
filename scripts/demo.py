"""The same as `nmt demo`."""

import sys

from nmt.cli.main import main

if __name__ == "__main__":
    sys.argv[:1] = ["nmt", "demo"]
    main()
