"""The last lines of a run: what came out, what was built and what was reused."""

from pydantic import JsonValue

from tasks.promote import as_table
from tasks.results import StageResult


def summary(results: list[StageResult]) -> list[str]:
    """Lines for a terminal."""
    by_stage = {result.stage: result for result in results}
    lines = ["", "stage      status    seconds  artifact"]
    lines += [
        f"{result.stage:<10} {result.status:<8} {result.seconds:>8.1f}  "
        f"{result.kind}/{result.key[:12]}"
        for result in results
    ]
    lines.append("")
    lines += _accuracy(by_stage["validate"].facts)
    checkpoint, promotion = by_stage["train"], by_stage["promote"]
    lines.append(f"checkpoint  {checkpoint.kind}/{checkpoint.key}")
    pointed = "NOT promoted" if promotion.status == "refused" else f"refs/{promotion.facts['ref']}"
    lines.append(f"promoted    {pointed}: {promotion.facts['reason']}")
    if "criteria" in promotion.facts:
        lines += ["", *as_table(promotion.facts["criteria"]).splitlines(), ""]
    lines.append(f"report      {by_stage['report'].facts['html']}")
    built = [result.stage for result in results if result.status in ("built", "rebuilt")]
    reused = [result.stage for result in results if result.status == "reused"]
    lines.append(f"built       {', '.join(built) or 'nothing: everything was found and verified'}")
    lines.append(f"reused      {', '.join(reused) or 'nothing'}")
    return lines


def _accuracy(facts: dict[str, JsonValue]) -> list[str]:
    if failed := facts.get("checks_failed"):
        checks = "check" if failed == 1 else "checks"
        return [f"accuracy    not evaluated: {failed} {checks} of the checkpoint failed"]
    seen = int(str(facts["seen"]))
    lines = []
    for top in (1, 5):
        correct = int(str(facts[f"correct_top{top}"]))
        lines.append(f"accuracy@{top}  {correct / seen:.2%} ({correct}/{seen})")
    return lines


def print_summary(results: list[StageResult]) -> None:
    """To standard output."""
    print("\n".join(summary(results)), flush=True)
