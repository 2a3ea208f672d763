"""The same as `nmt export`."""

import sys

from nmt.cli.main import main

if __name__ == "__main__":
    sys.argv[:1] = ["nmt", "export"]
    main()
