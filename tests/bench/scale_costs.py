"""What each stage takes at sizes that can't be run here, from unit costs measured here.

A stage's time is the longer of computing and moving bytes; computing is divided among the cores or
hosts that share it, and only among those. Nothing else is assumed to help.
"""

from dataclasses import dataclass

Units = dict[str, float]

CARDS_PER_HOST = 8
# Published for skresnet18 with 8 cards: 11,169 images/s (8 x 910, MindCV), the higher of two.
IMAGES_PER_SECOND_AND_CARD = 1396
# Of docs/internals/performance.md: one core, 500x375 JPEGs.
CONVERT_SECONDS_PER_IMAGE = 677e-6
TRAIN_INPUT_IMAGES_PER_CORE = {"original bytes": 697, "side 256": 1311}
COMMIT_SECONDS_PER_FILE = 0.53e-3
CHECKPOINT_PAUSE_SECONDS = 0.035  # of a save of skresnet18; the rest is written beside the steps
# Assumed, as no such host is here.
CORES_PER_HOST = 64
BYTES_PER_SECOND_AND_HOST = 1.25e9  # 10 Gbit/s, to a store or file system that gives it to each
HOST_MEMORY = 512e9
# What the code does: sknet/data/conversion/plan.py, infra/s3, infra/artifacts, MindCV's recipes.
SHARD_BYTES = 1 << 28
PART_BYTES = 64 << 20
MAX_DOCUMENT_BYTES = 32 << 20
MAX_VALUES = 500_000
MAX_RECORD_BYTES = 1 << 26
MAX_PREDICTIONS = 100 * 50e3  # sknet/evaluation/predictions.py: a hundred times ImageNet-1K
LISTED_PER_REQUEST = 1000
REQUESTS_OF_COMMIT, REQUESTS_OF_LOOKUP = 9, 3
BATCH_PER_CARD, STEPS_PER_SEGMENT, READING_THREADS = 64, 500, 8
# Weights and momentum of skresnet18's 11.96 M parameters, statistics apart.
CHECKPOINT_BYTES = 11.96e6 * 4 * 2
# Estimated: of one sample in a rank's memory before Parquet, as all ranks gather all predictions.
PREDICTION_BYTES = 400.0


@dataclass(frozen=True)
class Case:
    """A data set."""

    name: str
    images: float
    bytes: float
    val: float
    """Images to validate on, of `images`."""


@dataclass(frozen=True)
class Cost:
    """Of one stage."""

    stage: str
    seconds: float
    memory: float
    """Bytes that grow with the data, of the largest process."""
    read: float
    """Bytes over the network or from the disk, of the busiest host."""
    requests: float
    """To a store and a source on S3, of all hosts."""
    bound: str
    """What the time is spent on."""


CASES = (
    Case("ImageNet-1K", 1.28e6, 140e9, 50e3),
    Case("ImageNet-21K", 14e6, 1.3e12, 500e3),
    Case("1 B images", 1e9, 93e12, 1e6),
)
HOSTS = (1, 8, 64)


def num_shards(case: Case) -> int:
    """Of all splits, with `--shards auto`."""
    return -int(-case.bytes // SHARD_BYTES)


def costs(case: Case, hosts: int, units: Units) -> list[Cost]:
    """Of all stages, in their order."""
    return [
        stage(case, units),
        restage(case, units),
        convert(case, hosts, units),
        commit(case, units),
        fetch(case, hosts, units),
        epoch(case, hosts, units),
        validate(case, units),
    ]


def stage(case: Case, units: Units) -> Cost:
    """One process looks at every image once; hashing needs a core, reading the link."""
    look = case.images * (
        units["stage_seconds_per_sample"] + units["index_write_seconds_per_sample"]
    )
    work = look + case.bytes * units["hash_seconds_per_byte"]
    move = case.bytes / BYTES_PER_SECOND_AND_HOST
    requests = case.images + case.images / LISTED_PER_REQUEST + REQUESTS_OF_COMMIT + 2
    memory = case.images * units["stage_peak_bytes_per_sample"]
    return _cost("stage, first time", work, move, memory, case.bytes, requests)


def restage(case: Case, units: Units) -> Cost:
    """Nothing changed: listing, the ledger, the digest."""
    work = case.images * units["restage_seconds_per_sample"]
    memory = case.images * units["restage_peak_bytes_per_sample"]
    requests = case.images / LISTED_PER_REQUEST + REQUESTS_OF_LOOKUP
    return _cost("stage, unchanged", work, 0, memory, 0, requests)


def convert(case: Case, hosts: int, units: Units) -> Cost:
    """Every core of every host; the index is read, checked and planned by one process."""
    alone = case.images * (
        units["index_read_seconds_per_sample"] + units["plan_seconds_per_sample"]
    )
    work = alone + case.images * CONVERT_SECONDS_PER_IMAGE / (hosts * CORES_PER_HOST)
    # Each byte is read from the source, written, and read back for its hash.
    moved = 3 * case.bytes / hosts
    memory = case.images * units["index_memory_bytes_per_sample"]
    return _cost("convert", work, moved / BYTES_PER_SECOND_AND_HOST, memory, moved, case.images)


def commit(case: Case, units: Units) -> Cost:
    """One host hashes all shards and uploads them."""
    files = 2 * num_shards(case)
    work = files * (COMMIT_SECONDS_PER_FILE + units["manifest_write_seconds_per_file"])
    work += case.bytes * units["hash_seconds_per_byte"]
    parts = case.bytes / PART_BYTES + 2 * num_shards(case) + num_shards(case)
    memory = files * units["manifest_bytes_per_file"]
    move = case.bytes / BYTES_PER_SECOND_AND_HOST
    return _cost("commit of the shards", work, move, memory, case.bytes, parts + REQUESTS_OF_COMMIT)


def fetch(case: Case, hosts: int, units: Units) -> Cost:
    """Every host gets and hashes every shard; its ranks share the hashing."""
    work = case.bytes * units["hash_seconds_per_byte"] / CARDS_PER_HOST
    requests = hosts * (case.bytes / PART_BYTES + num_shards(case) + REQUESTS_OF_LOOKUP)
    move = case.bytes / BYTES_PER_SECOND_AND_HOST
    return _cost("fetch and verify", work, move, 0, case.bytes, requests)


def epoch(case: Case, hosts: int, units: Units) -> Cost:
    """Training at the published speed, with a pause for each checkpoint."""
    cards = hosts * CARDS_PER_HOST
    train = case.images - case.val
    segments = max(1.0, train / (cards * BATCH_PER_CARD * STEPS_PER_SEGMENT))
    seconds = train / (cards * IMAGES_PER_SECOND_AND_CARD) + segments * CHECKPOINT_PAUSE_SECONDS
    move = case.bytes / hosts / BYTES_PER_SECOND_AND_HOST
    memory = train * units["open_peak_bytes_per_row"] + segment_bytes(case, hosts, units)
    bound = "cards" if seconds >= move else "bytes"
    read = case.bytes / hosts
    return Cost("an epoch of training", max(seconds, move), memory, read, segments, bound)


def segment_bytes(case: Case, hosts: int, units: Units) -> float:
    """Of the list of positions that a rank hands to MindSpore for one segment."""
    indices = min(STEPS_PER_SEGMENT * BATCH_PER_CARD, case.images / hosts / CARDS_PER_HOST)
    return indices * units["sampler_bytes_per_index"]


def open_files(case: Case, units: Units) -> float:
    """Of one rank, for one pipeline: two of them overlap at the end of a segment."""
    threads = READING_THREADS * units["open_files_per_shard_and_thread"]
    return num_shards(case) * (threads + units["open_files_per_shard"])


def validate(case: Case, units: Units) -> Cost:
    """One card, at the speed of training at least."""
    del units
    seconds = case.val / IMAGES_PER_SECOND_AND_CARD
    read = case.val * case.bytes / case.images
    memory = case.val * PREDICTION_BYTES
    return Cost("validate", seconds, memory, read, REQUESTS_OF_COMMIT, "one card")


def _cost(name: str, work: float, move: float, memory: float, read: float, requests: float) -> Cost:
    bound = "computing" if work >= move else "bytes"
    return Cost(name, max(work, move), memory, read, requests, bound)
