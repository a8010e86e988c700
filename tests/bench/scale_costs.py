"""What each task takes at sizes that can't be run here, computed from unit costs measured here.

A task takes as long as the longer of computing and moving bytes. Computing is divided only among
the cores or hosts that share it in the code.
"""

from dataclasses import dataclass

Units = dict[str, float]

CARDS_PER_HOST = 8
# The higher of two published figures for skresnet18 on 8 cards: 11,169 images/s (8 x 910, MindCV).
IMAGES_PER_SECOND_AND_CARD = 1396
# From docs/internals/performance.md: one core, JPEGs of 500x375 pixels.
CONVERT_SECONDS_PER_IMAGE = 677e-6
FINGERPRINT_SECONDS_PER_IMAGE = 1.1e-3
MATCH_SECONDS_PER_IMAGE = 30e-6  # of a million images; it grows by bits of their hashes
MATCH_BYTES_PER_IMAGE = 410.0  # the fingerprint as an object, and what matching adds at its peak
TRAIN_INPUT_IMAGES_PER_CORE = {"original bytes": 760, "side 256": 1276}
COMMIT_SECONDS_PER_FILE = 0.53e-3
CHECKPOINT_PAUSE_SECONDS = 0.035  # skresnet18; the rest of a save runs beside the next steps
# Assumed, because no such host was available.
CORES_PER_HOST = 64
BYTES_PER_SECOND_AND_HOST = (
    1.25e9  # 10 Gbit/s, from a store or file system that serves all hosts at that rate
)
HOST_MEMORY = 512e9
# Constants of sknet/data/conversion/plan.py, infra/s3, infra/artifacts, and of MindCV's recipes.
SHARD_BYTES = 1 << 28
PART_BYTES = 64 << 20
MAX_DOCUMENT_BYTES = 32 << 20
MAX_VALUES = 500_000
MAX_RECORD_BYTES = 1 << 26
MAX_PREDICTIONS = 100 * 50e3  # sknet/evaluation/predictions.py: a hundred times ImageNet-1K
MAX_SAMPLES_OPENED = 1 << 16  # sknet/data/reading/training_batches.py
LISTED_PER_REQUEST = 1000
REQUESTS_OF_COMMIT, REQUESTS_OF_LOOKUP = 9, 3
BATCH_PER_CARD, STEPS_PER_CHECKPOINT, READING_THREADS = 64, 500, 8
STAGING_THREADS = 4  # sknet/data/staging.py
# Weights and momentum of skresnet18's 11.96 M parameters, statistics apart.
CHECKPOINT_BYTES = 11.96e6 * 4 * 2
# Estimated memory of one prediction before it is written; every rank gathers all predictions.
PREDICTION_BYTES = 400.0


@dataclass(frozen=True)
class Case:
    """A data set."""

    name: str
    images: float
    bytes: float
    val: float
    """Number of validation images among `images`."""


@dataclass(frozen=True)
class Cost:
    """Cost of one task."""

    task: str
    seconds: float
    memory: float
    """Memory of the largest process that grows with the data set, in bytes."""
    read: float
    """Bytes that the busiest host reads from the network or the disk."""
    requests: float
    """Requests of all hosts to a store and a source on S3."""
    bound: str
    """What limits the speed."""


CASES = (
    Case("ImageNet-1K", 1.28e6, 140e9, 50e3),
    Case("ImageNet-21K", 14e6, 1.3e12, 500e3),
    Case("1 B images", 1e9, 93e12, 1e6),
)
HOSTS = (1, 8, 64)


def num_shards(case: Case) -> int:
    """Return the number of shards of all splits with `--shards auto`."""
    return -int(-case.bytes // SHARD_BYTES)


def costs(case: Case, hosts: int, units: Units) -> list[Cost]:
    """Return the costs of all tasks, in their order."""
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
    """One process reads and hashes every image once, and looks for copies."""
    look = case.images * (
        units["stage_seconds_per_sample"] + units["index_write_seconds_per_sample"]
    )
    looks = case.images * (
        FINGERPRINT_SECONDS_PER_IMAGE / STAGING_THREADS + MATCH_SECONDS_PER_IMAGE
    )
    work = look + looks + case.bytes * units["hash_seconds_per_byte"]
    move = case.bytes / BYTES_PER_SECOND_AND_HOST
    requests = case.images + case.images / LISTED_PER_REQUEST + REQUESTS_OF_COMMIT + 2
    memory = case.images * (units["stage_peak_bytes_per_sample"] + MATCH_BYTES_PER_IMAGE)
    return _cost("stage, first time", work, move, memory, case.bytes, requests)


def restage(case: Case, units: Units) -> Cost:
    """Stage an unchanged source again: list it, compare with the scan cache, look for copies."""
    work = case.images * (units["restage_seconds_per_sample"] + MATCH_SECONDS_PER_IMAGE)
    memory = case.images * (units["restage_peak_bytes_per_sample"] + MATCH_BYTES_PER_IMAGE)
    requests = case.images / LISTED_PER_REQUEST + REQUESTS_OF_LOOKUP
    return _cost("stage, unchanged", work, 0, memory, 0, requests)


def convert(case: Case, hosts: int, units: Units) -> Cost:
    """Every core of every host converts; one process reads the index and plans."""
    alone = case.images * (
        units["index_read_seconds_per_sample"] + units["plan_seconds_per_sample"]
    )
    work = alone + case.images * CONVERT_SECONDS_PER_IMAGE / (hosts * CORES_PER_HOST)
    # Each byte is read from the source, written, and read back to be hashed.
    moved = 3 * case.bytes / hosts
    # The index is read in parts; the records of all shards are held.
    memory = num_shards(case) * units["shards_record_bytes_per_shard"]
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
    """Every host fetches every shard; its ranks share the hashing."""
    work = case.bytes * units["hash_seconds_per_byte"] / CARDS_PER_HOST
    requests = hosts * (case.bytes / PART_BYTES + num_shards(case) + REQUESTS_OF_LOOKUP)
    move = case.bytes / BYTES_PER_SECOND_AND_HOST
    return _cost("fetch and verify", work, move, 0, case.bytes, requests)


def epoch(case: Case, hosts: int, units: Units) -> Cost:
    """Training at the published speed, with a pause for each checkpoint."""
    cards = hosts * CARDS_PER_HOST
    train = case.images - case.val
    checkpoints = max(1.0, train / (cards * BATCH_PER_CARD * STEPS_PER_CHECKPOINT))
    seconds = train / (cards * IMAGES_PER_SECOND_AND_CARD) + checkpoints * CHECKPOINT_PAUSE_SECONDS
    move = case.bytes / hosts / BYTES_PER_SECOND_AND_HOST
    memory = train * units["open_peak_bytes_per_row"] + positions_bytes(case, hosts, units)
    bound = "cards" if seconds >= move else "bytes"
    read = case.bytes / hosts
    return Cost("an epoch of training", max(seconds, move), memory, read, checkpoints, bound)


def positions_bytes(case: Case, hosts: int, units: Units) -> float:
    """Return the size of the list of samples for which MindSpore's reader is opened at once."""
    indices = min(MAX_SAMPLES_OPENED, case.images / hosts / CARDS_PER_HOST)
    return indices * units["sampler_bytes_per_index"]


def open_files(case: Case, units: Units) -> float:
    """Return the number of files that one pipeline of a rank holds open.

    An evaluation has a pipeline of its own, while that of training stays open.
    """
    threads = READING_THREADS * units["open_files_per_shard_and_thread"]
    return num_shards(case) * (threads + units["open_files_per_shard"])


def validate(case: Case, units: Units) -> Cost:
    """One card validates, at the speed of training."""
    del units
    seconds = case.val / IMAGES_PER_SECOND_AND_CARD
    read = case.val * case.bytes / case.images
    memory = case.val * PREDICTION_BYTES
    return Cost("validate", seconds, memory, read, REQUESTS_OF_COMMIT, "one card")


def _cost(name: str, work: float, move: float, memory: float, read: float, requests: float) -> Cost:
    bound = "computing" if work >= move else "bytes"
    return Cost(name, max(work, move), memory, read, requests, bound)
