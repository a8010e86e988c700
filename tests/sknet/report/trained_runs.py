"""A run that nobody trained, with the log lines that it is made of."""

from sknet.recipe import Recipe
from sknet.report import TrainedRun

STEPS_PER_EPOCH = 44


def step_line(step: int, loss: float) -> dict[str, object]:
    return {
        "type": "step",
        "step": step,
        "epoch": (step - 1) // STEPS_PER_EPOCH,
        "loss": loss,
        "lr": 0.03 / step,
        "images_per_second": 180.2,
        "data_wait_share": 0.02,
        "ms_per_step": 170.1,
    }


def epoch_line(epoch: int, **values: object) -> dict[str, object]:
    evaluated = {"correct_top1": 340, "correct_top5": 358, "seen": 360, "loss_sum": 210.6}
    line = {"type": "epoch", "step": STEPS_PER_EPOCH * (epoch + 1), "epoch": epoch}
    return {**line, "train_loss": 1.7, "seconds": 9.1, **evaluated, **values}


START: dict[str, object] = {"type": "start", "step": 0, "world_size": 2}
END: dict[str, object] = {
    "type": "end",
    "compile_seconds": 6.1,
    "ms_per_step_p50": 170.25,
    "ms_per_step_p90": 180.0,
    "ms_per_step_p99": 200.0,
    "images_per_second": 188.0,
    "data_wait_share": 0.01,
    "restarts": 0,
}
LOG = [START, step_line(22, 2.1), step_line(44, 1.2), epoch_line(0), END]


def make_run(**changes: object) -> TrainedRun:
    evaluation = {
        "split": "test",
        "resolution": 32,
        "seen": 360,
        "correct_top1": 351,
        "correct_top5": 359,
        "loss_sum": 90.0,
        "class_seen": (),
        "class_correct": (),
    }
    values = {
        "key": "0123456789abcdef" * 4,
        "recipe": Recipe(name="digits", model="skresnet18", batch_size=16, epoch_size=6, lr=0.05),
        "model": "skresnet18",
        "params": 11_958_056,
        "world_size": 2,
        "global_batch_size": 32,
        "device_target": "CPU",
        "mindspore": "2.10.0",
        "steps": 264,
        "evaluation": evaluation,
        "log": LOG,
        "tasks": [{"task": "train", "seconds": 61.5}],
        "checkpoint_digest": "fedcba9876543210" * 4,
    }
    return TrainedRun.model_validate(values | changes)
