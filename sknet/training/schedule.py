"""The learning rate of every step, computed before the first."""

import math

from sknet.records import Run


def learning_rates(run: Run) -> list[float]:
    """One rate a step: linear warm-up to the peak, then the recipe's decay to `min_lr`."""
    recipe = run.recipe
    peak = recipe.peak_lr(run.world_size)
    warmup = recipe.warmup_epochs * run.steps_per_epoch
    decay = run.total_steps - warmup
    rates = [peak * (step + 1) / warmup for step in range(warmup)]
    for step in range(decay):
        if recipe.scheduler == "constant":
            rates.append(peak)
        else:
            share = (1 + math.cos(math.pi * step / decay)) / 2
            rates.append(recipe.min_lr + (peak - recipe.min_lr) * share)
    return rates
