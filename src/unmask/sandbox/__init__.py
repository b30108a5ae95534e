"""Runs untrusted Python programs in confined, short-lived processes. See docs/sandbox.md."""

from unmask.sandbox.jobs import Job, Limits, Outcome
from unmask.sandbox.pool import Sandbox
from unmask.sandbox.probe import enforcement

__all__ = ["Job", "Limits", "Outcome", "Sandbox", "enforcement"]
