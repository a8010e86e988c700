"""Where the heavy stages run: one setting for conversion and training."""

from functools import partial
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from infra.launch.gang import Gang
from sknet.errors import UserError
from sknet.recipe import Recipe


class LaunchSettings(BaseModel):
    """What a user may choose about the hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launcher: Annotated[str, Field(pattern=r"^(local|ray:auto|ray://.+)$")] = "local"
    """`local`, or a running Ray cluster: `ray:auto`, `ray://HOST:PORT`."""
    hosts: Annotated[int, Field(ge=1)] = 1
    """Of the training, each with an equal share of its workers."""
    wait_for_hosts: Annotated[float, Field(ge=0)] = 60.0
    """Seconds until training starts, or goes on, with fewer hosts than that."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.launcher == "local" and self.hosts > 1:
            raise ValueError("several hosts need a launcher: ray:auto or ray://HOST:PORT")
        return self

    @property
    def is_local(self) -> bool:
        """Whether this host does it all."""
        return self.launcher == "local"

    @property
    def ray_address(self) -> str:
        """As Ray takes it."""
        return "auto" if self.launcher == "ray:auto" else self.launcher


def gang_of(
    settings: LaunchSettings, recipe: Recipe, num_workers: int, device_target: str
) -> Gang | None:
    """The hosts for a training that is planned for `num_workers` ranks; None: this one.

    Raises UserError if the ranks can't be shared equally among the hosts.
    """
    if settings.is_local:
        return None
    if num_workers % settings.hosts:
        raise UserError(
            f"{num_workers} workers can't be shared equally among {settings.hosts} hosts: "
            "choose a multiple"
        )
    global_batch = recipe.global_batch(num_workers)
    return Gang(
        address=settings.ray_address,
        hosts=settings.hosts,
        slots=num_workers // settings.hosts,
        resource="NPU" if device_target == "Ascend" else "CPU",
        usable=partial(recipe.can_share, global_batch),
        wait=settings.wait_for_hosts,
    )
