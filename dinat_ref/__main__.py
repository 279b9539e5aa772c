"""``python -m dinat_ref`` is ``dinat-ref``."""

import sys

from dinat_ref.cli import main

sys.exit(main())
