"""Where a run is hit: drawn from a seed, so that every point can be repeated."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

from tests.tiny_pipeline import TASKS

Victim = Literal["flow", "rank", "scheduler", "converter", "worker", "Prefect server", "S3 server"]
Form = Literal["command", "deployment"]
Store = Literal["directory", "S3"]

VICTIMS: tuple[Victim, ...] = get_args(Victim)
# The tasks that run a program, which takes long enough for others to die meanwhile.
PROGRAM_TASKS = ("convert", "train", "validate")
TASKS_OF: dict[Victim, tuple[str, ...]] = {
    "flow": tuple(TASKS),
    "rank": ("train",),
    "scheduler": ("train",),
    "converter": ("convert",),
    "worker": PROGRAM_TASKS,
    "Prefect server": PROGRAM_TASKS,
    "S3 server": PROGRAM_TASKS,
}


@dataclass(frozen=True)
class Point:
    """One run, and what is killed when."""

    number: int
    victim: Victim
    task: str
    fraction: float
    """When the victim is killed: fraction of the task's usual duration, from 0 to 1."""
    form: Form
    store: Store
    rank: int
    """Which rank is killed, if the victim is one."""
    down: float
    """Seconds until a killed server or worker is started again."""

    @property
    def name(self) -> str:
        """Short name, for a test's id."""
        return f"{self.number}-{self.victim.replace(' ', '-')}-{self.task}"


def draw(seed: int, count: int) -> list[Point]:
    """Return the first points of a seed: every victim in turn, all else at random."""
    chance = random.Random(seed)
    points = []
    turn: list[Victim] = []
    for number in range(1, count + 1):
        if not turn:
            turn = list(VICTIMS)
            chance.shuffle(turn)
        victim = turn.pop()
        form = chance.choice(get_args(Form))
        store = chance.choice(get_args(Store))
        point = Point(
            number=number,
            victim=victim,
            task=chance.choice(TASKS_OF[victim]),
            fraction=round(chance.random(), 2),
            form="deployment" if victim == "worker" else form,
            store="S3" if victim == "S3 server" else store,
            rank=chance.randrange(2),
            down=round(chance.uniform(0, 10), 1),
        )
        points.append(point)
    return points
