"""The lines of the acceptance: what each proves, its figures, and what they are compared with.

Nothing here runs anything. A figure that has nothing to be compared with in a setting has no bound
there, and a line that proves nothing there says why it is not run.
"""

from dataclasses import replace

from flows.acceptance.figures import PUBLISHED_CARDS, Figure, Limit, Line, Setting
from sknet.report.published import PUBLISHED, PublishedResult

TOLERANCE = 0.05
"""A figure that is worse than the published one by more than this fraction fails its line."""

SECOND_COMPILE = 0.3
"""Largest time of a second compilation, as a fraction of the first."""

DATA_WAIT = 0.05
"""Largest fraction of the time of the steps in which a rank waits for data."""

END_SECONDS = 30.0
"""Longest time from the loss of a rank until its job has ended."""

LOSS_DIFFERENCE = 0.01
"""Largest difference between the losses of Ascend and CPU at precision O0."""

ROUNDING = 0.001
"""Largest difference between the losses of a card and its host, whose divisions may round
differently."""

LOSS_FRACTION = 0.02
"""Largest difference between the losses of two ways to compute the same training, as a fraction of
the loss. Rounding differs, and its effect grows with every step."""

HOSTS_EFFICIENCY = 0.95
"""Smallest speed of N hosts, as a fraction of N times the speed of one."""

OWN = "this project"

UNDISTURBED = "training/undisturbed"
"""The training with which others are compared."""


def lines_of(setting: Setting) -> tuple[Line, ...]:
    """Return all lines in the order in which they are run."""
    lines = (
        *_machine(setting),
        *_training(setting),
        *_exactness(setting),
        *_choices(setting),
        *_several(setting),
    )
    return lines if setting.is_full else tuple(map(_without_times, lines))


def published() -> PublishedResult:
    """Return the published result that the acceptance compares with."""
    return next(
        row
        for row in PUBLISHED
        if row.model == "skresnet18" and row.ms_per_step and "910*" in row.source
    )


def _machine(setting: Setting) -> tuple[Line, ...]:
    on_ascend = setting.device_target == "Ascend"
    return (
        Line(
            name="doctor",
            proves="No check of `sknet doctor` fails: packages, disk, driver, firmware, "
            "CANN and the devices fit each other.",
            figures=(_none("checks that failed"), Figure(name="warnings")),
        ),
        Line(
            name="devices",
            proves="MindSpore computes on the device (`mindspore.run_check()`), and there are as "
            "many healthy devices as ranks.",
            figures=(
                _none("runs of MindSpore's check that failed"),
                Figure(
                    name="healthy devices",
                    compare=setting.cards if on_ascend else None,
                    source="--cards",
                    limit="at least",
                ),
            ),
        ),
        Line(
            name="data",
            proves="The data is there as shards, and every file of them has its recorded SHA-256. "
            "Images are converted first.",
            figures=(
                _none("missing or damaged files"),
                Figure(name="training images"),
                Figure(name="validation images"),
            ),
        ),
        Line(
            name="losses",
            proves="A training on one card gives the losses of the same training on CPU, at "
            "precision O0, over its first ten steps.",
            needs=("data",),
            trainings=("losses/card", "losses/cpu"),
            not_run="" if on_ascend else "the losses of Ascend are compared with those of the CPU",
            figures=(
                Figure(
                    name="largest difference of a loss",
                    compare=LOSS_DIFFERENCE,
                    source=OWN,
                    limit="at most",
                ),
                _exactly("compared steps", 10),
            ),
        ),
    )


def _training(setting: Setting) -> tuple[Line, ...]:
    row = published()
    source = f"{row.source}: configs/sknet/README.md"
    unpublished = "" if setting.is_published else _unpublished(setting)
    not_full = "" if setting.is_full else "speeds count on cards, with the published recipe"
    return (
        Line(
            name="training",
            proves="The recipe trains on all cards of one host, stops on request, and a second "
            "start of the same command resumes where the first one stopped.",
            needs=("data",),
            trainings=(UNDISTURBED,),
            figures=(
                _none("steps lost or repeated by the second start"),
                Figure(name="median step", unit="ms"),
                Figure(name="mean step", unit="ms"),
                Figure(name="speed", unit="images/s"),
                Figure(name="compilation", unit="s"),
                Figure(name="second compilation", unit="s"),
                Figure(name="fraction of the time without data"),
            ),
        ),
        Line(
            name="step-time",
            proves="A step takes as long as published.",
            needs=("training",),
            trainings=(UNDISTURBED,),
            not_run=unpublished,
            figures=(
                _published("median step", "ms", row.ms_per_step, source, "at most"),
                _published("speed", "images/s", row.images_per_second, source, "at least"),
            ),
        ),
        Line(
            name="compile-time",
            proves="The first step compiles in the published time.",
            needs=("training",),
            trainings=(UNDISTURBED,),
            not_run=unpublished,
            figures=(_published("compilation", "s", row.compile_seconds, source, "at most"),),
        ),
        Line(
            name="compile-cache",
            proves="A second start takes the compiled step from the cache.",
            needs=("training",),
            trainings=(UNDISTURBED,),
            not_run=not_full,
            figures=(
                Figure(
                    name="second compilation",
                    unit="of the first",
                    compare=SECOND_COMPILE,
                    source=OWN,
                    limit="at most",
                ),
            ),
        ),
        Line(
            name="data-wait",
            proves="The cards don't wait for images.",
            needs=("training",),
            trainings=(UNDISTURBED,),
            not_run=not_full,
            figures=(
                Figure(
                    name="fraction of the time without data",
                    compare=DATA_WAIT,
                    source=OWN,
                    limit="at most",
                ),
            ),
        ),
    )


def _exactness(setting: Setting) -> tuple[Line, ...]:
    end = Figure(
        name="time from SIGKILL to the end of the job",
        unit="s",
        compare=END_SECONDS,
        source=OWN,
        limit="at most",
    )
    compared = tuple(
        replace(figure, may_be_unknown=True)
        for figure in (
            _none("checkpoints that differ from the undisturbed training"),
            _exactly("compared checkpoints", 2),
        )
    )
    return (
        Line(
            name="bits",
            proves="A second training of the same recipe and seed gives the same bytes.",
            needs=("training",),
            trainings=(UNDISTURBED, "bits/again"),
            figures=(_none("checkpoints that differ"), _exactly("compared checkpoints", 2)),
        ),
        Line(
            name="kill",
            proves="SIGKILL to a rank ends the job and leaves no process; the same command resumes "
            "from the last checkpoint, and gives the bytes of an undisturbed training if the line "
            "bits passed.",
            needs=("training",),
            trainings=(UNDISTURBED, "kill/killed"),
            figures=(
                end,
                _none("processes left"),
                _none("steps between the last checkpoint and the resumed start"),
                *compared,
            ),
        ),
        Line(
            name="stop",
            proves="SIGUSR1 stops all ranks after the same step with a checkpoint; the same "
            "command resumes there, and gives the bytes of an undisturbed training if the line "
            "bits passed.",
            needs=("training",),
            trainings=(UNDISTURBED, "stop/stopped"),
            figures=(
                _exactly("ranks that stopped", setting.cards),
                _exactly("different last steps", 1),
                _none("steps between the stop and the resumed start"),
                *compared,
            ),
        ),
        Line(
            name="nan",
            proves="A training that diverges is refused: the error names the step, and no "
            "checkpoint has that step.",
            needs=("data",),
            trainings=("nan/diverging",),
            figures=(
                # The loss shows what is wrong with the weights one step late.
                Figure(
                    name="steps from the last logged loss to the step that is named",
                    compare=1,
                    source=OWN,
                    limit="at most",
                ),
                _none("checkpoints of that step or later ones"),
            ),
        ),
        Line(
            name="export",
            proves="A checkpoint of the training is exported on the device, and the file's logits "
            "are those of the network.",
            needs=("training",),
            trainings=(UNDISTURBED,),
            figures=(_none("exports that were refused"),),
        ),
    )


def _choices(setting: Setting) -> tuple[Line, ...]:
    return (
        Line(
            name="jit-levels",
            proves="The recipe trains alike at each jit level of MindSpore; their times stand "
            "beside each other.",
            needs=("training",),
            trainings=(UNDISTURBED, "jit-levels/O0", "jit-levels/O1"),
            figures=(
                _loss_difference(),
                *(
                    Figure(name=f"{name} at {level}", unit=unit)
                    for level in ("O0", "O1", "O2")
                    for name, unit in (("median step", "ms"), ("compilation", "s"))
                ),
            ),
        ),
        Line(
            name="precision",
            proves="Precision O2 (float16, with BatchNorm in float32) gives the losses of O0 "
            "(float32) on one card, over its first ten steps.",
            needs=("data",),
            trainings=("precision/O2", "losses/card"),
            figures=(_loss_difference(), _exactly("compared steps", 10)),
        ),
        Line(
            name="normalisation",
            proves="Images that one card normalises give the losses of images that its host "
            "normalises, over the first ten steps.",
            needs=("data",),
            trainings=("normalisation/device", "normalisation/host"),
            figures=(
                Figure(
                    name="largest difference of a loss",
                    compare=ROUNDING if setting.device_target == "Ascend" else 0,
                    source=OWN,
                    limit="at most",
                ),
                _exactly("compared steps", 10),
            ),
        ),
        Line(
            name="bind-core",
            proves="The recipe trains alike with and without cores bound to ranks "
            "(`msrun --bind_core`); the times of both stand beside each other.",
            needs=("training",),
            trainings=(UNDISTURBED, "bind-core/not-bound"),
            not_run=_not_bound(setting),
            figures=(
                _loss_difference(),
                Figure(name="median step with bound cores", unit="ms"),
                Figure(name="median step without", unit="ms"),
            ),
        ),
    )


def _several(setting: Setting) -> tuple[Line, ...]:
    return (
        Line(
            name="hosts",
            proves="The recipe trains on several hosts, which Ray places: N hosts train at nearly "
            "N times the speed of one host.",
            needs=("training",),
            trainings=(UNDISTURBED, "hosts/all"),
            not_run="" if setting.hosts > 1 else "--hosts is 1",
            figures=(
                Figure(
                    name="speed",
                    unit="times that of one host",
                    compare=setting.hosts,
                    source="measured here, by the line training",
                    limit="at least",
                    tolerance=1 - HOSTS_EFFICIENCY,
                ),
                _exactly("hosts that trained", setting.hosts),
                Figure(name="median step", unit="ms"),
            ),
        ),
    )


def _none(name: str) -> Figure:
    return _exactly(name, 0)


def _exactly(name: str, count: int) -> Figure:
    return Figure(name=name, compare=count, source=OWN, limit="exactly")


def _loss_difference() -> Figure:
    return Figure(
        name="largest difference of a loss",
        unit="of the loss",
        compare=LOSS_FRACTION,
        source=OWN,
        limit="at most",
    )


def _published(name: str, unit: str, value: float | None, source: str, limit: Limit) -> Figure:
    return Figure(
        name=name, unit=unit, compare=value, source=source, limit=limit, tolerance=TOLERANCE
    )


def _unpublished(setting: Setting) -> str:
    figures = f"figures were published for {PUBLISHED_CARDS} Ascend cards and skresnet18_ascend"
    if setting.device_target != "Ascend":
        return f"{figures}, not for {setting.device_target}"
    return f"{figures}, not for " + ("digits" if setting.miniature else f"{setting.cards} cards")


def _not_bound(setting: Setting) -> str:
    if setting.device_target != "Ascend":
        return "cores are bound by the NUMA node of each card"
    if setting.cards == 1:
        return "a single rank has all cores"
    obstacle = setting.binding_obstacle
    return f"bind_core has no effect on this host: {obstacle}" if obstacle else ""


def _without_times(line: Line) -> Line:
    """Return a line whose times and speeds are only reported."""
    timed = ("ms", "s", "images/s", "times that of one host")
    figures = (each.without_bound() if each.unit in timed else each for each in line.figures)
    return replace(line, figures=tuple(figures))
