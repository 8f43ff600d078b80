"""`python -m midnight.ssl.launch JOB.json`, see `midnight.ssl.launch.entry`."""

import sys

from midnight.ssl.launch.entry import main

sys.exit(main())
