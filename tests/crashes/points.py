"""Where a run is hit: drawn from a seed, so that a point can be repeated."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

Victim = Literal["flow", "rank", "scheduler", "converter", "worker", "Prefect server", "S3 server"]
Form = Literal["command", "deployment"]
Place = Literal["directory", "S3"]

VICTIMS: tuple[Victim, ...] = get_args(Victim)
STAGES = ("stage", "convert", "train", "validate", "promote", "report")
# The stages in which a program works, while which others can die.
LONG = ("convert", "train", "validate")
STAGES_OF: dict[Victim, tuple[str, ...]] = {
    "flow": STAGES,
    "rank": ("train",),
    "scheduler": ("train",),
    "converter": ("convert",),
    "worker": LONG,
    "Prefect server": LONG,
    "S3 server": LONG,
}


@dataclass(frozen=True)
class Point:
    """One run, and what kills what of it when."""

    number: int
    victim: Victim
    stage: str
    share: float
    """Of the time that the stage usually takes, from 0 to 1."""
    form: Form
    place: Place
    rank: int
    """Which one, if it is a rank's turn."""
    down: float
    """Seconds until a server or worker is started again."""

    @property
    def name(self) -> str:
        """For a test's name."""
        return f"{self.number}-{self.victim.replace(' ', '-')}-{self.stage}"


def draw(seed: int, count: int) -> list[Point]:
    """The first points of a seed: every victim in turn, all else by chance."""
    chance = random.Random(seed)
    points = []
    turn: list[Victim] = []
    for number in range(1, count + 1):
        if not turn:
            turn = list(VICTIMS)
            chance.shuffle(turn)
        victim = turn.pop()
        form = chance.choice(get_args(Form))
        place = chance.choice(get_args(Place))
        point = Point(
            number=number,
            victim=victim,
            stage=chance.choice(STAGES_OF[victim]),
            share=round(chance.random(), 2),
            form="deployment" if victim == "worker" else form,
            place="S3" if victim == "S3 server" else place,
            rank=chance.randrange(2),
            down=round(chance.uniform(0, 10), 1),
        )
        points.append(point)
    return points
