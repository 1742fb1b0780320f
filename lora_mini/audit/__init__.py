"""Is this adapter sound? `smoke_test` trains a fresh one; `audit` looks at what is there."""

from lora_mini.audit.before import Snapshot, snapshot
from lora_mini.audit.findings import Finding, Findings
from lora_mini.audit.smoke import Point, smoke_test
from lora_mini.audit.whole import audit

audit.snapshot = snapshot

__all__ = ["Finding", "Findings", "Point", "Snapshot", "audit", "smoke_test", "snapshot"]
