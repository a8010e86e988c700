"""The columns of each table, in order, with their pandas types."""

PUBLISHED_COLUMNS = {
    "model name": "string",
    "params(M)": "Float64",
    "cards": "Int64",
    "batch size": "Int64",  # per card, as MindCV gives it
    "resolution": "string",
    "jit level": "string",
    "graph compile": "Float64",  # seconds
    "ms/step": "Float64",
    "img/s": "Float64",
    "acc@top1": "Float64",  # percent
    "acc@top5": "Float64",
    "recipe": "string",
    "weight": "string",
}
_ACCURACY = {
    "accuracy@1": "Float64",  # percent
    "95 % from": "Float64",
    "95 % to": "Float64",
    "accuracy@5": "Float64",
    "correct@1": "Int64",
    "correct@5": "Int64",
    "seen": "Int64",
    "loss": "Float64",
}
RUN_COLUMNS = {
    "run": "string",
    "key": "string",
    "recipe": "string",
    "model": "string",
    "created": "string",
    "verdict": "string",
    "data": "string",
    "cards": "Int64",
    "global batch": "Int64",
    "steps": "Int64",
    "epochs": "Int64",
    "parameters": "Int64",  # trainable
    "published parameters": "Int64",  # with as many classes
    "parameters are": "string",
    **_ACCURACY,
    "ms/step p50": "Float64",
    "ms/step p90": "Float64",
    "ms/step p99": "Float64",
    "img/s": "Float64",
    "data-wait share": "Float64",
    "compile seconds": "Float64",
    "train seconds": "Float64",
    "device-hours": "Float64",
    "cost": "Float64",  # device-hours times the price that was given
    "bytes": "Int64",  # of the artifacts of all stages
    "restarts": "Int64",
    "quarantined": "Int64",
    "device": "string",
    "mindspore": "string",
    "checkpoint": "string",
    "note": "string",
}
EPOCH_COLUMNS = {
    "run": "string",
    "epoch": "Int64",  # from 1
    "train loss": "Float64",
    "lr at the end": "Float64",
    "accuracy@1": "Float64",  # percent
    "accuracy@5": "Float64",
    "validation loss": "Float64",
    "correct@1": "Int64",
    "correct@5": "Int64",
    "seen": "Int64",
    "seconds": "Float64",
    "note": "string",
}
EVALUATION_COLUMNS = {
    "run": "string",
    "recipe": "string",
    "split": "string",
    "resolution": "string",
    **_ACCURACY,
    "calibration error": "Float64",  # expected; a share
}
NIGHT_COLUMNS = {
    "began": "string",
    "run": "string",
    "outcome": "string",
    "recorded correct@1": "Int64",
    "found correct@1": "Int64",
    "seen": "Int64",
    "differing": "Int64",
    "repairs": "Int64",
    "said": "string",
}
STAGE_COLUMNS = {
    "run": "string",
    "stage": "string",
    "artifact": "string",
    "digest": "string",
    "seconds": "Float64",
    "bytes": "Int64",
    "reused": "boolean",  # an earlier run of the store had made it
}
QUARANTINE_COLUMNS = {
    "data": "string",  # digest of the samples
    "split": "string",
    "key": "string",
    "reason": "string",
}
UNREADABLE_COLUMNS = {"artifact": "string", "reason": "string"}
