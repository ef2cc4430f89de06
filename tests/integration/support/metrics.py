"""Reads metrics in the text format from standard input with Prometheus' own parser, and writes them as JSON: the type
of each family, and the value of each sample by its name and labels. What the format or its conventions forbid is said on
standard error, and ends it with 1.
"""
import json
import sys

from prometheus_client.parser import text_string_to_metric_families

text, wrong, types, samples = sys.stdin.read(), [], {}, {}
for family in text_string_to_metric_families(text):
    if family.name in types:
        wrong.append(f"{family.name} comes twice")
    types[family.name] = family.type
    if not family.documentation or family.type not in ("counter", "gauge", "histogram"):
        wrong.append(f"{family.name}: {family.type}, {family.documentation!r}")
    if not family.name.startswith("rtp_cluster_"):
        wrong.append(f"{family.name}: whose is it?")
    for unit in ("millis", "micros", "percent", "_ms", "_us", "_minutes", "kilobytes"):
        if unit in family.name:
            wrong.append(f"{family.name}: not in a base unit")
    buckets = {}
    for sample in family.samples:
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        key = f"{sample.name}{{{labels}}}"
        if key in samples:
            wrong.append(f"{key} comes twice")
        samples[key] = sample.value
        if family.type == "counter" and not sample.name.endswith("_total"):
            wrong.append(f"{key}: a counter that does not say so")
        if sample.name.endswith("_bucket"):
            series = tuple(sorted((n, v) for n, v in sample.labels.items() if n != "le"))
            buckets.setdefault(series, []).append((float(sample.labels["le"]), sample.value))
    for series, counts in buckets.items():
        values = [value for _, value in counts]
        if counts != sorted(counts) or values != sorted(values) or counts[-1][0] != float("inf"):
            wrong.append(f"{family.name} {series}: {counts}")
        labels = ",".join(f"{name}={value}" for name, value in series)
        if samples.get(f"{family.name}_count{{{labels}}}") != values[-1]:
            wrong.append(f"{family.name} {series}: its count is not that of its last bucket")
json.dump({"types": types, "samples": samples}, sys.stdout)
for line in wrong:
    print(line, file=sys.stderr)
sys.exit(1 if wrong else 0)
