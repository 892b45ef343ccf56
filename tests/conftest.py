"""What every test gets: an environment without settings."""

import os

from pyvatti.settings import Settings

for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)
