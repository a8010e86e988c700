"""The learning rate of every step of a run, computed before the first step."""

import math
from bisect import bisect_right

from sknet.recipe import Recipe
from sknet.records import Run

# Of one_cycle, as in PyTorch and MindCV: the fraction of steps that rise, if the recipe has no
# warmup_epochs, and the first rate relative to the peak, if it has no warmup_factor.
RISE_FRACTION = 0.3
RISE_START = 1 / 25


def learning_rates(run: Run) -> list[float]:
    """Return the rate of each step: the warm-up to the peak, then the recipe's schedule.

    The rates equal MindCV's, which counts epochs from the end of the warm-up, with one exception:
    without `warmup_factor` the warm-up starts one step later, so that no step has the rate 0.
    """
    recipe = run.recipe
    peak = recipe.peak_lr(run.world_size)
    if recipe.scheduler == "one_cycle":
        return _one_cycle(recipe, peak, run.steps_per_epoch, run.total_steps)
    warmup = recipe.warmup_epochs * run.steps_per_epoch
    rates = [_warm_up(recipe, peak, step, warmup) for step in range(warmup)]
    after = range(run.total_steps - warmup)
    return rates + [_decayed(recipe, peak, step, run.steps_per_epoch, len(after)) for step in after]


def _warm_up(recipe: Recipe, peak: float, step: int, steps: int) -> float:
    if recipe.warmup_factor is None:
        return peak * (step + 1) / steps
    return peak * (recipe.warmup_factor + (1 - recipe.warmup_factor) * step / steps)


def _decayed(recipe: Recipe, peak: float, step: int, steps_per_epoch: int, steps: int) -> float:
    epoch = step // steps_per_epoch
    match recipe.scheduler:
        case "cosine_decay":
            decay = recipe.decay_epochs * steps_per_epoch if recipe.decay_epochs else steps
            left = (1 + math.cos(math.pi * step / decay)) / 2 if step < decay else 0.0
            return recipe.min_lr + (peak - recipe.min_lr) * left
        case "step_decay":
            num_decays = epoch // (recipe.decay_epochs or recipe.epoch_size)
            return peak * recipe.decay_rate**num_decays
        case "multi_step_decay":
            num_decays = bisect_right(recipe.multi_step_decay_milestones, epoch)
            return peak * recipe.decay_rate**num_decays
        case _:
            return peak


def _one_cycle(recipe: Recipe, peak: float, steps_per_epoch: int, steps: int) -> list[float]:
    """Return half a cosine up to the peak and half a cosine down to min_lr, both ends included."""
    rise = recipe.warmup_epochs * steps_per_epoch or RISE_FRACTION * steps
    start = peak * (RISE_START if recipe.warmup_factor is None else recipe.warmup_factor)
    top = rise - 1
    return [
        _half_cosine(start, peak, step / top)
        if 0 < top >= step
        else _half_cosine(peak, recipe.min_lr, (step - top) / (steps - 1 - top))
        for step in range(steps)
    ]


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
