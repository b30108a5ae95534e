"""Runs untrusted Python programs in confined, short-lived processes. See docs/sandbox.md."""

from unmask.sandbox.jobs import AnyJob, Check, Job, Limits, Outcome, Script
from unmask.sandbox.pool import Sandbox
from unmask.sandbox.probe import enforcement

__all__ = ["AnyJob", "Check", "Job", "Limits", "Outcome", "Sandbox", "Script", "enforcement"]
