"""How many inputs the property tests try: few and always the same, or `WORKBENCH_PROPERTIES=many` new ones.

``WORKBENCH_PROPERTIES=2000`` tries that many per test.
"""

import os

from hypothesis import HealthCheck, settings

_MANY = 1000


def examples(few: int) -> settings:
    """Return the settings of a property test that tries `few` inputs by default."""
    asked = os.environ.get("WORKBENCH_PROPERTIES", "")
    count = int(asked) if asked.isdecimal() else _MANY if asked else few
    return settings(
        max_examples=count,
        derandomize=not asked,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
