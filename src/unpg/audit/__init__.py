"""What an embedding model can say against a set: wrong labels, identities split or shared, pictures twice."""

from unpg.audit.audit import Audit, Limits, audit
from unpg.audit.findings import IdentityMatch, LabelNoise, NearDuplicate
from unpg.audit.known import Known, KnownMatch, judge_known, read_known
from unpg.audit.save import save_audit
from unpg.audit.scan import FoundPairs, scan
from unpg.audit.side import Side
from unpg.audit.threshold import Threshold, require_resolved, threshold_at

__all__ = [
    "Audit",
    "FoundPairs",
    "IdentityMatch",
    "Known",
    "KnownMatch",
    "LabelNoise",
    "Limits",
    "NearDuplicate",
    "Side",
    "Threshold",
    "audit",
    "judge_known",
    "read_known",
    "require_resolved",
    "save_audit",
    "scan",
    "threshold_at",
]
