"""Whose virtualization a host has, which decides what its records say."""

from __future__ import annotations

from typing import Literal

Vendor = Literal["vmx", "svm"]
"""Intel's, AMD's."""
