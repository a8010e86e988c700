"""What gives way first as a data set grows, by the number of images at which it does."""

from tests.bench import scale_costs as costs
from tests.bench.scale_costs import Units

BYTES_PER_IMAGE = 93e3  # ImageNet-21K's
GETS_PER_SECOND = 5500
OPEN_FILES = (1024, 65_536)  # usual limits of a process: of a shell, and of a service
Limit = tuple[float, str, str]
"""Images, what gives way, what then."""


def limits(units: Units) -> list[Limit]:
    """What gives way first, by the number of images at which it does."""
    shards = costs.SHARD_BYTES / BYTES_PER_IMAGE  # images in one
    files = costs.READING_THREADS * units["open_files_per_shard_and_thread"]
    files += units["open_files_per_shard"]
    memory = costs.HOST_MEMORY
    per_document = shards / 2  # two files a shard
    day = 86_400
    found = [
        (
            OPEN_FILES[0] / files * shards,
            f"open files of a rank, {costs.READING_THREADS} threads, `ulimit -n` {OPEN_FILES[0]}",
            f"`ulimit -n {OPEN_FILES[1]}`, or fewer shards (`--shards 64`)",
        ),
        (
            OPEN_FILES[1] / files / 2 * shards,
            f"the same of two pipelines at the end of a segment, `ulimit -n` {OPEN_FILES[1]}",
            "fewer, larger shards, or a higher limit",
        ),
        (
            5e6,
            "rows that MindRecord keeps ready (`LAZY_LOAD_THRESHOLD` in its source); beyond it, it "
            "looks rows up in the index as it reads",
            "nothing: what that costs is to be measured on such a set",
        ),
        (
            4096 * shards,
            "4,096 shards, beyond which MindDataset warns of a slow start",
            "`--shards 4096`, of any size",
        ),
        (
            memory / units["stage_peak_bytes_per_sample"],
            f"memory of staging, on one host of {memory / 1e9:.0f} GB",
            "the index would have to be written in parts, and merged on disk",
        ),
        (
            memory / costs.CARDS_PER_HOST / units["open_peak_bytes_per_row"],
            "rows of the shards in the memory of eight ranks, if MindRecord kept all of them",
            "ranks would have to open only the shards that a segment needs",
        ),
        (
            costs.MAX_VALUES / units["manifest_values_per_file"] * per_document,
            f"values of a manifest (`MAX_VALUES`, {costs.MAX_VALUES:,})",
            "refused in one line at the commit; fewer shards, or an artifact for each part",
        ),
        (
            costs.MAX_DOCUMENT_BYTES / units["manifest_bytes_per_file"] * per_document,
            f"bytes of a manifest (`MAX_DOCUMENT_BYTES`, {costs.MAX_DOCUMENT_BYTES >> 20} MiB)",
            "the same",
        ),
        (
            costs.MAX_RECORD_BYTES / units["shards_record_bytes_per_shard"] * shards,
            f"bytes of `shards.json` (`MAX_RECORD_BYTES`, {costs.MAX_RECORD_BYTES >> 20} MiB)",
            "the same",
        ),
        (
            costs.BYTES_PER_SECOND_AND_HOST * day / BYTES_PER_IMAGE,
            "a day until a host has fetched all shards",
            "a file system that all hosts share: a rank then reads what it trains on",
        ),
        (
            GETS_PER_SECOND * day,
            f"a day of GETs at {GETS_PER_SECOND:,}/s (AWS's figure for a prefix), of class folders",
            "archives as the source: they are read from start to end",
        ),
        (
            costs.MAX_PREDICTIONS,
            "images to validate on, whose predictions fill the 256 MiB that are read back",
            "a larger `MAX_BYTES` in `sknet/evaluation/predictions.py`, or files in parts",
        ),
        (
            memory / costs.CARDS_PER_HOST / costs.PREDICTION_BYTES,
            "images to validate on: every rank of a host gathers all predictions",
            "rows would have to be written in groups as they come",
        ),
        (2**31, "rows that MindRecord counts in 32 bits", "several data sets"),
    ]
    return sorted(found)
