"""docs/internals/scale.md: each task at three sizes on 1, 8 and 64 hosts, and what fails first.

python -m tests.bench.scale_model              # writes the page from scale_units.json
python -m tests.bench.scale_model --measure    # measures that file again first, in minutes
python -m tests.bench.scale_model --laws 100000 1000000 10000000    # and how costs grow
"""

import argparse
import json
from pathlib import Path

from tests.bench import scale_costs as costs
from tests.bench import scale_units
from tests.bench.scale_costs import CASES, HOSTS, Case, Units
from tests.bench.scale_limits import BYTES_PER_IMAGE, limits
from tests.bench.scale_on_demand import DEFAULT_PARTS, DEFAULT_WINDOW, WINDOWS_AHEAD, on_demand
from tests.processes import ROOT

UNITS = Path(__file__).with_name("scale_units.json")
LAWS = Path(__file__).with_name("scale_laws.json")
PAGE = ROOT / "docs" / "internals" / "scale.md"


def page() -> str:
    """Return the page; the same measured figures give the same text."""
    measured = json.loads(UNITS.read_text("utf-8"))
    laws = json.loads(LAWS.read_text("utf-8"))
    units: Units = measured["units"]
    parts = [introduction(measured["conditions"]), unit_table(units), law_table(laws)]
    parts += [case_table(case, units) for case in CASES]
    parts += [
        on_demand_tables(units),
        training_table(units),
        limits_table(units),
        conclusions(units),
    ]
    return "\n".join(parts)


def introduction(conditions: dict[str, str]) -> str:
    """Return the introduction: what the figures are, and how they were measured."""
    memory, link = costs.HOST_MEMORY / 1e9, costs.BYTES_PER_SECOND_AND_HOST / 1e9
    return f"""\
# Scale, on paper

This page estimates what each task takes for data sets from ImageNet-1K to a billion images, on 1, 8
and 64 hosts, and which limits such data sets meet. Nothing of this size was run: unit costs were
measured on a small machine and multiplied. This command writes the page from the unit costs in
`tests/bench/scale_units.json`; with `--measure` it measures them again first:

```console
$ python -m tests.bench.scale_model
```

They were measured on {conditions["date"]} with {int(conditions["samples"]):,} samples and
{conditions["shards"]} shards, with {conditions["cores"]} cores (load {conditions["load"]}).
{conditions.get("later", "")}
Times are CPU seconds, except for opening shards; other work on the machine makes even CPU seconds
longer.

The page assumes hosts with {costs.CORES_PER_HOST} cores as fast as these, {memory:.0f} GB of
memory, and a link that reads {link:g} GB/s (10 Gbit/s) from the store or a shared file system. The
speed of a card was published: {costs.IMAGES_PER_SECOND_AND_CARD:,} images/s
(skresnet18, 11,169 on 8 x 910).

A task takes as long as the longer of computing and moving bytes; "bound by" names it. Computing is
divided among cores or hosts only where the code divides it. Memory is that of the largest process.
Requests are those of all hosts to S3, if the store and the source (class folders) are both there.
"""


def unit_table(units: Units) -> str:
    """Return the table of unit costs."""
    rows = [
        ("stage a sample (list, assign, sort, digest)", "stage_seconds_per_sample", 1e6, "µs"),
        ("… peak memory", "stage_peak_bytes_per_sample", 1, "B"),
        ("… its row of the file index, in memory", "index_memory_bytes_per_sample", 1, "B"),
        ("… the same, in `samples.parquet`", "index_file_bytes_per_sample", 1, "B"),
        ("… its row of the scan cache", "scan_cache_bytes_per_sample", 1, "B"),
        ("stage an unchanged sample again", "restage_seconds_per_sample", 1e6, "µs"),
        ("read and check the index, per sample", "index_read_seconds_per_sample", 1e6, "µs"),
        ("plan the shards, per sample", "plan_seconds_per_sample", 1e6, "µs"),
        ("hash a gigabyte", "hash_seconds_per_byte", 1e9, "s"),
        ("compute a position of an epoch's order", "order_seconds_per_position", 1e9, "ns"),
        (
            "… of an epoch of a billion samples",
            "order_seconds_per_position_of_a_billion",
            1e9,
            "ns",
        ),
        ("an index in MindSpore's sampler", "sampler_bytes_per_index", 1, "B"),
        ("a file in a manifest", "manifest_bytes_per_file", 1, "B"),
        ("… written and sealed", "manifest_write_seconds_per_file", 1e6, "µs"),
        ("… read and checked", "manifest_read_seconds_per_file", 1e6, "µs"),
        ("a shard in `shards.json`", "shards_record_bytes_per_shard", 1, "B"),
        ("open a shard", "open_seconds_per_shard", 1e3, "ms"),
        ("… files held open, per reading thread", "open_files_per_shard_and_thread", 1, ""),
        ("… files held open besides", "open_files_per_shard", 1, ""),
        ("a row of the shards, in each rank's memory", "open_peak_bytes_per_row", 1, "B"),
    ]
    lines = ["## Unit costs\n", "| | |", "|---|---:|"]
    lines += [
        f"| {what} | {figure(units[name] * scale)} {unit} |" for what, name, scale, unit in rows
    ]
    convert, commit = costs.CONVERT_SECONDS_PER_IMAGE * 1e6, costs.COMMIT_SECONDS_PER_FILE * 1e3
    pause = costs.CHECKPOINT_PAUSE_SECONDS * 1e3
    look, match = costs.FINGERPRINT_SECONDS_PER_IMAGE * 1e3, costs.MATCH_SECONDS_PER_IMAGE * 1e6
    lines += [
        f"| an image's fingerprint ([performance.md](performance.md)) | {look:.1f} ms |",
        f"| … compare it with others (the same) | {match:.0f} µs |",
        f"| … memory of both | {costs.MATCH_BYTES_PER_IMAGE:.0f} B |",
        f"| convert an image (the same) | {convert:.0f} µs |",
        f"| commit a file (the same) | {commit:.2f} ms |",
        f"| a checkpoint of skresnet18 | {size(costs.CHECKPOINT_BYTES)} |",
        f"| … training waits for it (the same) | {pause:.0f} ms |",
    ]
    return "\n".join(lines) + "\n"


def law_table(laws: dict[str, list[dict[str, float]]]) -> str:
    """Return the table that shows how costs grow."""
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
        "Measured on metadata alone: the real code handles samples that have no files. Manifests",
        "have a hundredth as many files. If a unit cost doesn't grow, the whole cost is linear in",
        "the number of samples. `tests/bench/test_scale_units.py` checks this at smaller sizes.\n",
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
    """Return the table of all tasks for one size."""
    lines = [
        f"## {case.name}: {count(case.images)} images, {size(case.bytes)}, "
        f"{costs.num_shards(case):,} shards\n",
        "| task | "
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
            f"| {most.task} | {seconds} | {row[0].bound} | {size(most.memory)}{beyond} | "
            f"{size(row[0].read)} | {count(most.requests)} |"
        )
    return "\n".join(lines) + "\n"


def on_demand_tables(units: Units) -> str:
    """Return the tables of what shards on demand change, for the larger data sets."""
    lines = [
        f"""\
## What shards on demand change

With `shuffle: full`, each host fetches and verifies all shards before its first step. With
`shuffle: blocks` and a store on S3, the first step needs one window of each part of the host,
{DEFAULT_WINDOW:,} samples by default. The host's disk holds the windows that are read, the next
{WINDOWS_AHEAD} and the validation split; more of `SKNET_ON_DEMAND_GB` saves fetching shards again.
These are the shards that `sknet/data/block_order.py` names for the busiest host. There are as many
parts as hosts where these are more than {DEFAULT_PARTS}, the default.
"""
    ]
    heads = " | ".join(f"{hosts} host{'s'[: hosts > 1]}" for hosts in HOSTS)
    for case in CASES[1:]:
        found = [on_demand(case, hosts) for hosts in HOSTS]
        full = [costs.fetch(case, hosts, units) for hosts in HOSTS]
        rows = [
            ("`shuffle_parts`", [str(each.parts) for each in found]),
            ("before the first step", [_fetched(each.first, each.first_seconds) for each in found]),
            ("… in the full order", [_fetched(each.read, each.seconds) for each in full]),
            ("disk of a host", [size(each.held) for each in found]),
            ("… in the full order", [size(each.read) for each in full]),
            ("fetched by a host in an epoch", [size(each.epoch) for each in found]),
        ]
        lines += [f"| {case.name} | {heads} |", "|---|" + "---:|" * len(HOSTS)]
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
        lines.append("")
    need = costs.IMAGES_PER_SECOND_AND_CARD * costs.CARDS_PER_HOST * BYTES_PER_IMAGE
    lines += [
        "Where the disk doesn't hold all shards of a host's parts, its link carries",
        f"{size(need)}/s throughout the training.",
    ]
    return "\n".join(lines) + "\n"


def _fetched(num_bytes: float, seconds: float) -> str:
    return f"{size(num_bytes)}, {duration(seconds)}"


def training_table(units: Units) -> str:
    """Return the table of what a host must deliver to its eight cards."""
    need = costs.IMAGES_PER_SECOND_AND_CARD * costs.CARDS_PER_HOST
    lines = ["## What a host must deliver to its cards\n"]
    lines.append(f"Eight cards train on {need:,} images/s. A core decodes and crops:")
    lines += [
        "\n| stored as | images/s per core | cores for eight cards | bytes/s |",
        "|---|---:|---:|---:|",
    ]
    for name, rate in costs.TRAIN_INPUT_IMAGES_PER_CORE.items():
        stored = 110e3 if name == "original bytes" else 25e3
        lines.append(f"| {name} | {rate} | {need / rate:.0f} | {size(need * stored)}/s |")
    positions = costs.positions_bytes(CASES[0], 1, units)
    lines.append(
        f"\nA rank's list of the samples that it reads next takes {size(positions)} "
        f"at any size of data set, because the order is computed and not stored."
    )
    return "\n".join(lines) + "\n"


def limits_table(units: Units) -> str:
    """Return the table of limits."""
    lines = [
        "## Which limit is met first\n",
        f"With {BYTES_PER_IMAGE / 1e3:.0f} kB per image and shards of 256 MiB, in this order:\n",
        "| images | limit | what to do |",
        "|---:|---|---|",
    ]
    lines += [f"| {count(at)} | {what} | {then} |" for at, what, then in limits(units)]
    return "\n".join(lines) + "\n"


def conclusions(units: Units) -> str:
    """Return what follows."""
    case, hosts = CASES[1], HOSTS[1]
    few = on_demand(case, hosts)
    full = costs.fetch(case, hosts, units)
    return f"""\
## What follows

- **ImageNet-1K** is what this is made for. Every task fits one host, and so do all shards. Raise
  `ulimit -n` first.
- **ImageNet-21K** runs the same way on more hosts. One host reads and hashes everything once, while
  staging. With `shuffle: blocks` and a store on S3, {hosts} hosts begin to train after
  {duration(few.first_seconds)} of fetching instead of {duration(full.seconds)}, and each needs
  {size(few.held)} of disk instead of {size(full.read)}.
- **A billion images** can be trained on by blocks, as the first step and the disk of a host don't
  grow with the training images. Three things would have to change to get so many into a store, in
  this order:
  1. Shards become an artifact per part. Today one host commits all of them as one artifact, with
     one manifest and one `shards.json`.
  2. The index is staged in parts and merged.
  3. The source is read as archives and not as files.

At any size, computing a part of the order takes time for that part only. Augmentation,
checkpoints and resuming do not depend on the size of the data set, and a lookup does not depend on
the number of artifacts ([performance.md](performance.md)).
"""


def figure(value: float) -> str:
    """Format with three significant digits, or all before the decimal point."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def count(number: float) -> str:
    """Format a number as in 1.28 M."""
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Format bytes as in 1.3 TB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f} B"


def duration(seconds: float) -> str:
    """Format seconds as in 1.5 h."""
    for limit, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:.3g} {unit}"
    return f"{seconds:.2g} s"


def main(arguments: argparse.Namespace) -> None:
    """Measure if asked to, then write the page."""
    if arguments.measure:
        scale_units.main(
            argparse.Namespace(samples=arguments.samples, shards=arguments.shards, json=UNITS)
        )
    if arguments.laws:
        runs = [scale_units.rounded(scale_units.measure(count, 0)) for count in arguments.laws]
        runs = [{"samples": count, **run} for count, run in zip(arguments.laws, runs, strict=True)]
        LAWS.write_text(json.dumps({"runs": runs}, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--measure", action="store_true")
    result.add_argument("--laws", type=int, nargs="+", metavar="SAMPLES", default=[])
    result.add_argument("--samples", type=int, default=1_000_000)
    result.add_argument("--shards", type=int, default=200)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
