"""docs/internals/scale.md: each task at three sizes on 1, 8 and 64 hosts, and what fails first.

python -m tests.bench.scale_model              # writes the page from scale_units.json
python -m tests.bench.scale_model --measure    # measures that file anew first (minutes)
python -m tests.bench.scale_model --laws 100000 1000000 10000000    # and how costs grow
"""

import argparse
import json
from pathlib import Path

from tests.bench import scale_costs as costs
from tests.bench import scale_units
from tests.bench.scale_costs import CASES, HOSTS, Case, Units
from tests.bench.scale_limits import BYTES_PER_IMAGE, limits
from tests.processes import ROOT

UNITS = Path(__file__).with_name("scale_units.json")
LAWS = Path(__file__).with_name("scale_laws.json")
PAGE = ROOT / "docs" / "internals" / "scale.md"


def page() -> str:
    """All of it, from what is kept: the same figures give the same text."""
    kept = json.loads(UNITS.read_text("utf-8"))
    laws = json.loads(LAWS.read_text("utf-8"))
    units: Units = kept["units"]
    parts = [introduction(kept["conditions"]), unit_table(units), law_table(laws)]
    parts += [case_table(case, units) for case in CASES]
    parts += [training_table(units), limits_table(units), DESIGN]
    return "\n".join(parts)


def introduction(conditions: dict[str, str]) -> str:
    """What the figures are, and how they were found."""
    memory, link = costs.HOST_MEMORY / 1e9, costs.BYTES_PER_SECOND_AND_HOST / 1e9
    return f"""\
# Scale, on paper

Nothing of this size was run here: these are unit costs measured here, multiplied. The page is
written by this command from `tests/bench/scale_units.json`; `--measure` measures that anew.

```console
$ python -m tests.bench.scale_model
```

Measured {conditions["date"]} with {int(conditions["samples"]):,} samples and \
{conditions["shards"]} shards on {conditions["cores"]} cores (load {conditions["load"]}). Seconds
are of CPU, but for opening shards; other work on the machine lengthens them all the same.

Assumed, as no such host is here: {costs.CORES_PER_HOST} cores as fast as these and {memory:.0f} GB
a host, {link:g} GB/s to each host from the store or a shared file system (10 Gbit/s). Published:
{costs.IMAGES_PER_SECOND_AND_CARD:,} images/s a card (skresnet18, 11,169 on 8 x 910). A stage takes
the longer of computing and moving bytes; computing is divided only where the code divides it.
Requests are those to S3, if the store is there and the source (class folders) too.
"""


def unit_table(units: Units) -> str:
    """The unit costs."""
    rows = [
        ("look at a sample (list, place, sort, digest)", "stage_seconds_per_sample", 1e6, "µs"),
        ("its memory, at the peak of staging", "stage_peak_bytes_per_sample", 1, "B"),
        ("its row of the file index: in memory", "index_memory_bytes_per_sample", 1, "B"),
        ("… in `samples.parquet`", "index_file_bytes_per_sample", 1, "B"),
        ("its row of the ledger", "ledger_file_bytes_per_sample", 1, "B"),
        ("look again, nothing changed", "restage_seconds_per_sample", 1e6, "µs"),
        ("read and check the index, a sample", "index_read_seconds_per_sample", 1e6, "µs"),
        ("plan the shards, a sample", "plan_seconds_per_sample", 1e6, "µs"),
        ("hash a gigabyte", "hash_seconds_per_byte", 1e9, "s"),
        ("a position of an epoch's order", "order_seconds_per_position", 1e9, "ns"),
        ("… of a billion's", "order_seconds_per_position_of_a_billion", 1e9, "ns"),
        ("an index given to MindSpore's sampler", "sampler_bytes_per_index", 1, "B"),
        ("a file in a manifest", "manifest_bytes_per_file", 1, "B"),
        ("… written and sealed", "manifest_write_seconds_per_file", 1e6, "µs"),
        ("… read and checked", "manifest_read_seconds_per_file", 1e6, "µs"),
        ("a shard in `shards.json`", "shards_record_bytes_per_shard", 1, "B"),
        ("open a shard", "open_seconds_per_shard", 1e3, "ms"),
        ("… files held open, each reading thread", "open_files_per_shard_and_thread", 1, ""),
        ("… and beside them", "open_files_per_shard", 1, ""),
        ("a row of the shards, in each rank's memory", "open_peak_bytes_per_row", 1, "B"),
    ]
    lines = ["## Unit costs\n", "| | |", "|---|---:|"]
    lines += [
        f"| {what} | {figure(units[name] * scale)} {unit} |" for what, name, scale, unit in rows
    ]
    convert, commit = costs.CONVERT_SECONDS_PER_IMAGE * 1e6, costs.COMMIT_SECONDS_PER_FILE * 1e3
    pause = costs.CHECKPOINT_PAUSE_SECONDS * 1e3
    lines += [
        f"| convert an image ([performance.md](performance.md)) | {convert:.0f} µs |",
        f"| commit a file (the same) | {commit:.2f} ms |",
        f"| a checkpoint of skresnet18 | {size(costs.CHECKPOINT_BYTES)} |",
        f"| … for which training waits (the same) | {pause:.0f} ms |",
    ]
    return "\n".join(lines) + "\n"


def law_table(laws: dict[str, list[dict[str, float]]]) -> str:
    """The runs that show how costs grow."""
    runs = laws["runs"]
    counts = " ".join(str(run["samples"]) for run in runs)
    names = [
        "stage_seconds_per_sample",
        "stage_peak_bytes_per_sample",
        "restage_seconds_per_sample",
        "index_file_bytes_per_sample",
        "index_read_seconds_per_sample",
        "plan_seconds_per_sample",
        "order_seconds_per_position",
        "manifest_write_seconds_per_file",
    ]
    heads = " | ".join(f"{int(run['samples']):,}" for run in runs)
    lines = [
        "## How they grow\n",
        "Metadata alone: samples that take no files, through the real code; for manifests a",
        "hundredth as many files. A unit cost that stays means that the whole is linear.",
        "`tests/bench/test_scale_model.py` holds the laws at smaller sizes.\n",
        "```console",
        f"$ python -m tests.bench.scale_model --laws {counts}",
        "```\n",
        f"| samples | {heads} |",
        "|---|" + "---:|" * len(runs),
    ]
    for name in names:
        scale, unit = (1e6, "µs") if "seconds" in name else (1, "B")
        shown = " | ".join(f"{figure(run[name] * scale)} {unit}" for run in runs)
        lines.append(f"| `{name}` | {shown} |")
    return "\n".join(lines) + "\n"


def case_table(case: Case, units: Units) -> str:
    """All stages of one size."""
    lines = [
        f"## {case.name}: {count(case.images)} images, {size(case.bytes)}, "
        f"{costs.num_shards(case):,} shards\n",
        "| stage | "
        + " | ".join(f"{hosts} host{'s'[: hosts > 1]}" for hosts in HOSTS)
        + " | bound by | memory | bytes a host | requests |",
        "|---|" + "---:|" * len(HOSTS) + "---|---:|---:|---:|",
    ]
    by_hosts = [costs.costs(case, hosts, units) for hosts in HOSTS]
    for row in zip(*by_hosts, strict=True):
        seconds = " | ".join(duration(cost.seconds) for cost in row)
        most = row[-1]
        beyond = " (more than a host has)" if most.memory > costs.HOST_MEMORY else ""
        lines.append(
            f"| {most.stage} | {seconds} | {row[0].bound} | {size(most.memory)}{beyond} | "
            f"{size(row[0].read)} | {count(most.requests)} |"
        )
    return "\n".join(lines) + "\n"


def training_table(units: Units) -> str:
    """What a host must give its eight cards."""
    need = costs.IMAGES_PER_SECOND_AND_CARD * costs.CARDS_PER_HOST
    lines = ["## What a host must feed\n"]
    lines.append(f"Eight cards take {need:,} images/s. Decoding and cropping, a core:")
    lines += [
        "\n| stored as | images/s a core | cores for eight cards | bytes/s |",
        "|---|---:|---:|---:|",
    ]
    for name, rate in costs.TRAIN_INPUT_IMAGES_PER_CORE.items():
        stored = 110e3 if name == "original bytes" else 25e3
        lines.append(f"| {name} | {rate} | {need / rate:.0f} | {size(need * stored)}/s |")
    segments = costs.segment_bytes(CASES[0], 1, units)
    lines.append(
        f"\nA rank's list of positions for a segment of {costs.STEPS_PER_SEGMENT} steps takes "
        f"{size(segments)}, at any size of data set: order is computed, not kept."
    )
    return "\n".join(lines) + "\n"


def limits_table(units: Units) -> str:
    """What gives way first."""
    lines = [
        "## What gives way first\n",
        f"In this order, at {BYTES_PER_IMAGE / 1e3:.0f} kB an image and in shards of 256 MiB:\n",
        "| images | what | then |",
        "|---:|---|---|",
    ]
    lines += [f"| {count(at)} | {what} | {then} |" for at, what, then in limits(units)]
    return "\n".join(lines) + "\n"


DESIGN = """\
## What follows

- **ImageNet-1K** is what this is made for: every stage fits one host, and a shared file system or a
  cache on each host both do. Look at `ulimit -n` first.
- **ImageNet-21K** runs the same way with more hosts; staging hashes on one host, which takes as
  long as its link does, once. Every host fetches everything: put the cache on a shared file system
  beyond eight hosts.
- **A billion images** do not fit this design as it is. Four things would have to change, in this
  order: the artifact of all shards becomes one for each part (manifest, `shards.json`, commit by
  one host); ranks open only the shards of their segment (an order in two levels: shards, then
  rows within a window of them, which is another sampling than today's); the index is staged and
  merged in parts; and a source is read as archives, not as files.

What holds at any size, by construction: the order of a segment costs its own length; augmentation,
checkpoints and resuming don't know how large the data set is; lookups of artifacts don't know
how many there are ([performance.md](performance.md)).
"""


def figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def count(number: float) -> str:
    """As 1.28 M."""
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes, as 1.3 TB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f} B"


def duration(seconds: float) -> str:
    """As 1.5 h."""
    for limit, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:.3g} {unit}"
    return f"{seconds:.2g} s"


def main(arguments: argparse.Namespace) -> None:
    """Measure if asked to, and write the page."""
    if arguments.measure:
        scale_units.main(
            argparse.Namespace(samples=arguments.samples, shards=arguments.shards, json=UNITS)
        )
    if arguments.laws:
        runs = [scale_units.kept(scale_units.measure(count, 0)) for count in arguments.laws]
        runs = [{"samples": count, **run} for count, run in zip(arguments.laws, runs, strict=True)]
        LAWS.write_text(json.dumps({"runs": runs}, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--measure", action="store_true")
    result.add_argument("--laws", type=int, nargs="+", metavar="SAMPLES", default=[])
    result.add_argument("--samples", type=int, default=1_000_000)
    result.add_argument("--shards", type=int, default=200)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
