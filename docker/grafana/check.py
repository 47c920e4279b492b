"""Reads dashboards into Grafana's own model and writes them out again: what the model does not know is lost on the way, and told.

    check.py DASHBOARD.json...

Needs the package grafana-foundation-sdk; `scripts/test dashboards` gets it.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(ours, theirs, path="dashboard"):
    """The paths of what is in ours and not in theirs, or is another value there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs)):
            yield from lost(mine, other, f"{path}[{index}]")
    elif ours != theirs:
        yield path


def through_the_model(dashboard):
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def faults(dashboard):
    found = [f"not known to Grafana: {path}" for path in lost(dashboard, through_the_model(dashboard))]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    if len(numbers) != len(set(numbers)):
        found.append("two panels have the same id")
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for index, one in enumerate(places):
        if one["x"] + one["w"] > 24:
            found.append(f"wider than the page: {dashboard['panels'][index]['title']}")
        for other in places[:index]:
            apart = (one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
                     or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"])
            if not apart:
                found.append(f"two panels lie on each other: {dashboard['panels'][index]['title']}")
    return found


def main(paths):
    # A check that finds nothing in a bad one proves nothing.
    bad = {"title": "t", "panels": [{"id": 1, "type": "stat", "gridpos": {}, "gridPos": {"h": 1, "w": 25, "x": 0, "y": 0}, "title": "p"}]}
    if len(faults(bad)) != 2:
        sys.exit(f"the check does not see what is wrong with a bad dashboard: {faults(bad)}")
    count = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            dashboard = json.load(file)
        for fault in faults(dashboard):
            print(f"{path}: {fault}")
            count += 1
        print(f"{path}: {len(dashboard['panels'])} panels, {count} faults")
    sys.exit(1 if count or not paths else 0)


main(sys.argv[1:])
