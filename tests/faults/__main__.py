"""`just faults`: break runs in every way that is known, and count what was lost. `python -m tests.faults [--short]`."""

from tests.faults.table import main

raise SystemExit(main())
