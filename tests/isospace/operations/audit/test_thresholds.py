import re
from pathlib import Path

from isospace.operations.audit.thresholds import Thresholds

TABLE = Path("docs/quality.md").read_text(encoding="utf-8")


def test_every_alarm_and_threshold_is_in_the_documentation() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path("isospace/operations/audit").glob("*.py"))
    names = set(re.findall(r'_(?:alarm|refused)\(\s*"([a-z ]+)"', source))
    assert len(names) > 12
    missing = {name for name in names if not re.search(rf"^\| [^|]*\b{name}\b", TABLE, re.MULTILINE)}
    assert not missing
    written = dict(re.findall(r"`(\w+)` ([\d.e-]+)", TABLE))
    for name, field in Thresholds.model_fields.items():
        if field.default is not None:
            assert float(written[name]) == field.default, name
