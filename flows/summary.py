"""What became of a run: which artifacts were built, reused or refused, and its results."""

import shlex
from pathlib import Path

from prefect.artifacts import create_table_artifact
from pydantic import JsonValue

from infra.artifacts import default_store
from tasks.pages import KEY_DIGITS, tag_run, worth_no_failure
from tasks.promote import criteria_table
from tasks.results import TaskResult


def show(results: list[TaskResult]) -> list[TaskResult]:
    """Show on Prefect's pages what each task has done, and return the results.

    The run's tags say how its checkpoint came about and what became of it, so that the list of runs
    shows it.
    """
    by_task = {result.task: result for result in results}
    with worth_no_failure():
        create_table_artifact(
            [
                {
                    "task": result.task,
                    "status": result.status,
                    "seconds": f"{result.seconds:.1f}",
                    "artifact": f"{result.kind}/{result.key}",
                }
                for result in results
            ],
            key="tasks",
            description="What each task has done",
        )
    is_refused = by_task["promote"].status == "refused"
    tag_run(by_task["train"].status, "refused" if is_refused else "promoted")
    return results


def summary(results: list[TaskResult]) -> list[str]:
    """Return the summary of a run of train-sknet, as lines for a terminal."""
    by_task = {result.task: result for result in results}
    lines = ["", "task       status    seconds  artifact"]
    lines += [
        f"{result.task:<10} {result.status:<8} {result.seconds:>8.1f}  "
        f"{result.kind}/{result.key[:12]}"
        for result in results
    ]
    lines.append("")
    lines += _left_out(by_task["stage"].facts, by_task["convert"].facts)
    lines += _accuracy(by_task["validate"].facts)
    checkpoint, promotion = by_task["train"], by_task["promote"]
    lines.append(f"checkpoint  {checkpoint.kind}/{checkpoint.key}")
    target = "NOT promoted" if promotion.status == "refused" else f"refs/{promotion.facts['ref']}"
    judged = promotion.facts["judged"]
    lines.append(f"promoted    {target}{f': {judged}' if judged else ''}")
    if "criteria" in promotion.facts:
        lines += ["", *criteria_table(promotion.facts["criteria"]).splitlines(), ""]
    lines += [f"warning     {warning}" for warning in _texts(promotion.facts.get("warnings"))]
    if "sealed" in promotion.facts:
        lines.append(f"test split  {promotion.facts['sealed']}")
    if "passport" in promotion.facts:
        lines.append(f"passport    {promotion.facts['passport']}")
    lines.append(f"report      {by_task['report'].facts['html']}")
    built = [result.task for result in results if result.status in ("built", "rebuilt")]
    reused = [result.task for result in results if result.status == "reused"]
    lines.append(f"built       {', '.join(built) or 'nothing: everything was found, undamaged'}")
    lines.append(f"reused      {', '.join(reused) or 'nothing'}")
    return lines


def _left_out(staged: dict[str, JsonValue], converted: dict[str, JsonValue]) -> list[str]:
    by_task = [int(str(facts.get("quarantined", 0))) for facts in (staged, converted)]
    if not sum(by_task):
        return []
    splits = staged["splits"]
    usable = sum(int(str(count)) for count in splits.values()) if isinstance(splits, dict) else 0
    return [f"left out    {sum(by_task)} of {usable + by_task[0]} images; the log has each reason"]


def _accuracy(facts: dict[str, JsonValue]) -> list[str]:
    if failed := facts.get("checks_failed"):
        checks = "check" if failed == 1 else "checks"
        return [f"accuracy    not evaluated: {failed} {checks} of the checkpoint failed"]
    seen = int(str(facts["seen"]))
    lines = []
    for top in (1, 5):
        counted = facts[f"correct_top{top}"]
        if counted is not None:
            correct = int(str(counted))
            lines.append(f"accuracy@{top}  {correct / seen:.2%} ({correct}/{seen})")
    if isinstance(without := facts.get("without_leaked"), list):
        correct, others = (int(str(each)) for each in without)
        lines.append(
            f"            {correct / others:.2%} ({correct}/{others}) without leaked images"
        )
    for name, key in (("balanced", "balanced_accuracy"), ("macro-F1", "macro_f1")):
        if isinstance(value := facts.get(key), float):
            lines.append(f"{name:<12}{value:.2%}")
    return lines


def _texts(value: JsonValue) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def next_steps(results: list[TaskResult], store: str | None) -> list[str]:
    """Return what people do after a run: open the report, predict, and compare or promote.

    Args:
        results: The results of the run's tasks.
        store: The artifact store, as it was given; None: the default.
    """
    by_task = {result.task: result for result in results}
    checkpoint, promotion = by_task["train"], by_task["promote"]
    target = f"{checkpoint.kind}/{checkpoint.key}"
    at_store = f" --store {shlex.quote(store)}" if store else ""
    opened = f"sknet report{at_store} --open"
    run, other = checkpoint.key[:KEY_DIGITS], promotion.facts["earlier"]
    compare = (
        f"{opened} --compare {str(other)[:KEY_DIGITS]} {run}"
        if other
        else f"{opened} --compare {run} OTHER_RUN"
    )
    steps = {"open the report": opened, "predict": f"sknet predict{at_store} IMAGES"}
    if promotion.status != "refused":
        steps["compare"] = compare
    else:
        root = store or default_store()
        steps["predict"] = (
            f"sknet store fetch {target} --store {shlex.quote(root)} --out checkpoint && "
            "sknet predict --ckpt_path checkpoint IMAGES"
            if "://" in root
            else f"sknet predict --ckpt_path {shlex.quote(str(Path(root, target)))} IMAGES"
        )
        if other:
            steps["compare"] = compare
        steps["promote"] = (
            f"sknet store refs set {promotion.facts['ref']} {target} "
            f"--store {shlex.quote(root)} --reason WHY"
        )
    return ["", "next", *(f"  {what:<16} {command}" for what, command in steps.items())]


def print_summary(results: list[TaskResult], store: str | None) -> None:
    """Print the summary, and what to do next."""
    print("\n".join([*summary(results), *next_steps(results, store)]), flush=True)
