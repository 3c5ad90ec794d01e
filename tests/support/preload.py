"""What the zygote imports before it forks: the whole app, but for the modules that read the environment, and what it
imports later.

Passwords are hashed at less cost: every test registers users of its own.
"""

import gc
import importlib
import pkgutil
import warnings

import app
from app.auth import passwords

LATER = {"app.main", "app.__main__"}  # they read the environment when imported

warnings.simplefilter("error", ResourceWarning)
importlib.import_module("alembic.command")
importlib.import_module("lxml.etree")
for module in pkgutil.walk_packages(app.__path__, "app."):
    if module.name not in LATER and not module.name.startswith("app.migrations."):
        importlib.import_module(module.name)
passwords.ARGON2 = passwords.ARGON2.using(memory_cost=64)
gc.freeze()
