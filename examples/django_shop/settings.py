"""The least that Django needs; the database's path is DATABASE. Stagepost's settings are its own variables."""

from __future__ import annotations

import os

SECRET_KEY = "an example's, guards nothing"  # noqa: S105
INSTALLED_APPS = ["examples.django_shop"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "shop.db")}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
