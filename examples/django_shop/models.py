"""Orders, and the rows of their events until these are on the staging topic."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    number = models.BigIntegerField(primary_key=True)
    customer = models.TextField()

    class Meta:
        """Where it belongs."""

        app_label = "django_shop"

    def __str__(self) -> str:
        """Say which."""
        return f"order {self.number}"


class OutboxRow(models.Model):
    """An event that waits to be shipped; one with a `reason` never can be."""

    at = models.DateTimeField(auto_now_add=True)
    row = models.BinaryField()
    reason = models.TextField(null=True)

    class Meta:
        """Where it belongs, and that it is read in order."""

        app_label = "django_shop"
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        """Say which."""
        return f"row {self.pk}"
