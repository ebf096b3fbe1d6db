"""Which of ruff's rules a review reports, and how bad each is.

The cut: a rule is here when its statement is nearly always true and worth a reader's minute in somebody else's code
base. Left out on purpose: style and naming; rules that guess (S105-S107 passwords by variable name, S108 temporary
paths, S310 and S603 "check this call", S311 random, S314 XML parsers that current expat bounds, B023 closures that are
called at once, B004 and B031 where it is meant, PLW0127 re-exports, F405, RUF009, RUF012); and rules
on which good code bases differ (B026, B904, PLW0120, PLW0603, PLW2901). Judged on the sources of rich, networkx, redis,
pip, setuptools, pydantic, langgraph and pytest, 2026. `lint_checks.py` looks again at the rules that were right most
but not all of the time.
"""

from __future__ import annotations

import hashlib

from actors.tools.findings import Severity

_HIGH = """
F502 F503 F505 F506 F507 F508 F509 F521 F523 F524 F525 F621 F622 F631 F633 F634 F701 F702 F704 F706 F707 F821 F822 F823
PLE0100 PLE0115 PLE0116 PLE0117 PLE0118 PLE0237 PLE0241 PLE0302 PLE0307 PLE0604 PLE1132 PLE1141 PLE1142
PLE1205 PLE1206 PLE1300 PLE1307 PLE1310 PLE1507 PLE1700 PLE2502 PLE2510 PLE2512 PLE2513 PLE2514 PLE2515
B002 B030 PLW1501 RUF008 RUF016 RUF026
S306 S323 S501 S502 S503 S506 S507 S602 S605
"""

_MEDIUM = """
F402 F501 F504 F522 F601 F602 F632 F811
B003 B005 B006 B012 B015 B016 B019 B021 B022 B025 B029 B033 B035 B039
E722
ASYNC210 ASYNC220 ASYNC221 ASYNC222 ASYNC251
LOG007 LOG009
PIE794
PLE0704
PLW0129 PLW0131 PLW0133 PLW0245 PLW0711 PLW1507 PLW1509 PLW2101
RUF006 RUF018 RUF030 RUF040
S102 S103 S113 S201 S202 S302 S307 S321 S504 S505 S508 S509 S601 S608 S609 S612 S701 S702
SIM222 SIM223
T100
YTT101 YTT102 YTT103 YTT201 YTT202 YTT203 YTT204 YTT301 YTT302 YTT303
"""

_LOW = """
F401 F541 F841 F842
B014 B017 B020 B032
E711
PIE796
PLE0101
PLW0128 PLW0211 PLW0406 PLW0602 PLW0604 PLW1508
RUF017 RUF024 RUF033 RUF034
S110 S301 S324
"""

SEVERITY_BY_RULE: dict[str, Severity] = {
    **dict.fromkeys(_HIGH.split(), "high"),
    **dict.fromkeys(_MEDIUM.split(), "medium"),
    **dict.fromkeys(_LOW.split(), "low"),
}

SELECTED_RULES = ",".join(sorted(SEVERITY_BY_RULE))

NOT_IN_TESTS = ("S", "B015", "B017", "F401", "F811", "F841", "PLW0128", "RUF024")
"""Rules (by prefix) that say nothing in a test: it does such things on purpose and imports fixtures by name."""


def rules_digest() -> str:
    """A short digest of the table above, so that a changed rule gives stored results a new key."""
    table = ";".join(f"{rule}={severity}" for rule, severity in sorted(SEVERITY_BY_RULE.items()))
    return hashlib.sha256(f"{table}|{NOT_IN_TESTS}".encode()).hexdigest()[:12]
