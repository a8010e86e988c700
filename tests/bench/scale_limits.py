"""The limits that a growing data set meets."""

from tests.bench import scale_costs as costs
from tests.bench.scale_costs import Units

BYTES_PER_IMAGE = 93e3  # ImageNet-21K's
GETS_PER_SECOND = 5500
OPEN_FILES = (1024, 65_536)  # usual limits of a shell and of a service
Limit = tuple[float, str, str]
"""Number of images, the limit, what to do about it."""


def limits(units: Units) -> list[Limit]:
    """Return the limits, sorted by the number of images at which they are met."""
    images_per_shard = costs.SHARD_BYTES / BYTES_PER_IMAGE
    files = costs.READING_THREADS * units["open_files_per_shard_and_thread"]
    files += units["open_files_per_shard"]
    memory = costs.HOST_MEMORY
    images_per_file = images_per_shard / 2
    day = 86_400
    found = [
        (
            OPEN_FILES[0] / files * images_per_shard,
            f"open files of a rank, {costs.READING_THREADS} threads, `ulimit -n` {OPEN_FILES[0]}",
            f"`ulimit -n {OPEN_FILES[1]}`, fewer shards (`--shards 64`), or `shuffle: blocks`, "
            "with which a rank opens the shards of one window",
        ),
        (
            OPEN_FILES[1] / files / 2 * images_per_shard,
            f"open files of two pipelines, of training and evaluation, `ulimit -n` {OPEN_FILES[1]}",
            "fewer, larger shards, a higher limit, or `shuffle: blocks` for those of training",
        ),
        (
            5e6,
            "rows that MindRecord holds in memory (`LAZY_LOAD_THRESHOLD` in its source); beyond "
            "it, MindRecord looks rows up in the index as it reads",
            "nothing; what a lookup costs must be measured on such a data set",
        ),
        (
            4096 * images_per_shard,
            "4,096 shards; beyond it, MindDataset warns that it starts slowly",
            "`--shards 4096`, whatever their size, or `shuffle: blocks`",
        ),
        (
            memory / (units["stage_peak_bytes_per_sample"] + costs.MATCH_BYTES_PER_IMAGE),
            f"memory of staging, on one host of {memory / 1e9:.0f} GB",
            "the index would have to be written in parts, and merged on disk",
        ),
        (
            memory / costs.CARDS_PER_HOST / units["open_peak_bytes_per_row"],
            "rows in the memory of eight ranks, if MindRecord held all of them",
            "`shuffle: blocks`",
        ),
        (
            costs.MAX_VALUES / units["manifest_values_per_file"] * images_per_file,
            f"values in a manifest (`MAX_VALUES`, {costs.MAX_VALUES:,})",
            "the commit is refused; use fewer shards, or an artifact for each part",
        ),
        (
            costs.MAX_DOCUMENT_BYTES / units["manifest_bytes_per_file"] * images_per_file,
            f"size of a manifest (`MAX_DOCUMENT_BYTES`, {costs.MAX_DOCUMENT_BYTES >> 20} MiB)",
            "the same",
        ),
        (
            costs.MAX_RECORD_BYTES / units["shards_record_bytes_per_shard"] * images_per_shard,
            f"size of `shards.json` (`MAX_RECORD_BYTES`, {costs.MAX_RECORD_BYTES >> 20} MiB)",
            "the same",
        ),
        (
            costs.BYTES_PER_SECOND_AND_HOST * day / BYTES_PER_IMAGE,
            "a host takes a day to fetch all shards",
            "`shuffle: blocks` and a store on S3: a host fetches the shards of its parts, and "
            "trains meanwhile",
        ),
        (
            GETS_PER_SECOND * day,
            f"class folders on S3: a day of {GETS_PER_SECOND:,} GETs/s (AWS's limit for a prefix)",
            "archives as the source, which are read from start to end",
        ),
        (
            costs.MAX_PREDICTIONS,
            "validation images whose predictions fill 256 MiB, the largest file that is read back",
            "a larger `MAX_BYTES` in `sknet/evaluation/predictions.py`, or several files",
        ),
        (
            memory / costs.CARDS_PER_HOST / costs.PREDICTION_BYTES,
            "validation images: every rank of a host holds all predictions in memory",
            "predictions would have to be written in groups while they are computed",
        ),
        (2**31, "rows, which MindRecord counts in 32 bits", "several data sets"),
    ]
    return sorted(found)
