"""`python -m CACScoringLib`: the commands of scoring."""

import sys

from .cli.main import main

sys.exit(main())
