"""Software bill of materials of the running Python environment, as CycloneDX JSON.

`make sbom` calls it. Format: https://cyclonedx.org/docs/1.6/json/.
"""

import json
import re
import sys
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, cast

PROJECT = "model-editing-workbench"


def describe(about: Message, kind: str) -> dict[str, Any]:
    """Return the component of a distribution, from its metadata."""
    name = re.sub(r"[-_.]+", "-", about["Name"]).lower()
    address = f"pkg:pypi/{name}@{about['Version']}"
    component: dict[str, Any] = {"type": kind, "name": name, "version": about["Version"], "purl": address}
    component["bom-ref"] = address
    if summary := about.get("Summary"):
        component["description"] = summary
    if expression := about.get("License-Expression"):
        component["licenses"] = [{"expression": expression}]
    elif names := license_names(about):
        component["licenses"] = [{"license": {"name": each}} for each in names]
    return component


def license_names(about: Message) -> list[str]:
    """Return the licenses by their trove classifiers, else the first line of the free text."""
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License :: ")]
    given = (about.get("License") or "").strip().splitlines()
    return [line.rpartition(" :: ")[2] for line in classifiers] or given[:1]


def bill_of_materials() -> dict[str, Any]:
    """Return the bill: the workbench as its subject, and every other installed distribution by its name."""
    found: dict[str, dict[str, Any]] = {}
    for distribution in distributions():
        about = cast(Message, distribution.metadata)
        if about.get("Name") is None:  # a folder that an interrupted installation has left
            continue
        component = describe(about, "library")
        found.setdefault(component["name"], component)
    metadata: dict[str, Any] = {"lifecycles": [{"phase": "build"}]}
    if project := found.pop(PROJECT, None):
        metadata["component"] = {**project, "type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": [found[name] for name in sorted(found)],
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    bill = bill_of_materials()
    target.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{target}: {len(bill['components'])} packages")
