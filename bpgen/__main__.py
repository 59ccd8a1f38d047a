"""`python -m bpgen`."""

import sys

from bpgen.cli import main

sys.exit(main())
