"""Run the acceptance of docs/ascend.md: every line that a command can check, by itself.

python -m flows.acceptance --device_target Ascend --data SHARDS_OR_IMAGENET --out DIR
python -m flows.acceptance --miniature --out DIR

The second command tries all of it in a few minutes, on any machine. DIR gets acceptance.md, which
is for people, acceptance.json, and a directory for each line. A failed line does not end the
command. The same command resumes an interrupted one, and runs a line again only if its inputs
changed.

Exit codes: 0 no line failed, 1 a line failed or the command was interrupted, 2 an option is wrong.
"""

import argparse
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from flows.acceptance import results
from flows.acceptance.bench import FULL, MINIATURE, Bench, Measured
from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import PUBLISHED_CARDS, Line, Setting
from flows.acceptance.lines import lines_of
from flows.acceptance.machine import Machine, look_at
from flows.acceptance.results import Acceptance, LineResult
from flows.acceptance.trainings import RAY, LineError, Trainings
from infra.base.interrupts import run_interruptible
from infra.base.locks import exclusive
from infra.base.options import positive_int
from infra.base.outcomes import ExitCode, UserError
from infra.launch.binding import binding_obstacle
from infra.launch.cluster import ClusterError, connect
from sknet.data.sources import absolute, open_source
from sknet.device import CHOICES, choose_device, find_cards
from sknet.recipe import load_recipe
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE

MINIATURE_CARDS = 2
MINIATURE_DATA = "digits"
LINES_DIRECTORY = "lines"
LOCK = ".lock"


def main(arguments: argparse.Namespace) -> bool:
    """Check the options, run all lines that have to be run, and tell whether none failed.

    Raises:
        UserError: An option is wrong; nothing was run.
    """
    setting, data = _setting(arguments)
    lines = lines_of(setting)
    out: Path = arguments.out.absolute()
    before = _opened(out)
    machine = look_at(setting.device_target)
    with _held(out), _own_cache(out):
        bench = _bench(setting, data, out, machine)
        record = results.planned(before, setting, lines, data=data, versions=machine.versions)
        record, _ = _without_outdated(record, lines, bench)
        record.write_to(out)
        record = _run_lines(record, lines, bench, arguments.only)
    failed = [line.name for line in record.lines if line.status == "fail"]
    _say(f"the page: {out / results.PAGE_FILE}")
    if failed:
        again = " ".join(f"--only {name}" for name in failed)
        _say(f"failed: {', '.join(failed)}; after a repair, the same command with {again}")
    return not failed


def _setting(arguments: argparse.Namespace) -> tuple[Setting, str]:
    """Return the setting and the data that the options choose.

    Raises:
        UserError: They can't be run here.
    """
    device = choose_device(arguments.device_target, None)
    if device.target == "Ascend" and not (cards := find_cards()).usable:
        raise UserError(f"--device_target is Ascend, but this machine has {cards.said}")
    if device.target == "CPU" and not arguments.miniature:
        raise UserError(
            f"device CPU ({device.reason}): the published recipe would take days, "
            "--miniature tries the acceptance here"
        )
    data = arguments.data or (MINIATURE_DATA if arguments.miniature else "")
    if not data:
        raise UserError("--data is missing: a directory of shards, or of ImageNet")
    if arguments.miniature and data != MINIATURE_DATA:
        raise UserError(f"--miniature trains on {MINIATURE_DATA}, not on {data}: leave --data out")
    ranks = arguments.cards or (MINIATURE_CARDS if arguments.miniature else PUBLISHED_CARDS)
    setting = Setting(
        device_target=device.target,
        cards=ranks,
        hosts=arguments.hosts,
        miniature=arguments.miniature,
        binding_obstacle=binding_obstacle() or "",
    )
    if not setting.miniature:
        _refuse_data(data)
    scale = MINIATURE if setting.miniature else FULL
    load_recipe(scale.recipe, scale.overrides).global_batch(setting.cards * setting.hosts)
    if setting.hosts > 1:
        _refuse_cluster()
    return setting, absolute(data)


def _refuse_data(data: str) -> None:
    """Check that there are shards or images.

    Raises:
        UserError: There are none.
    """
    if (Path(data) / SHARDS_FILE).is_file():
        Shards.read(Path(data) / SHARDS_FILE)
    else:
        next(iter(open_source(data).files()), None)


def _refuse_cluster() -> None:
    """Check that there is a Ray cluster.

    Raises:
        UserError: There is none.
    """
    try:
        connect(RAY.removeprefix("ray:")).shutdown()
    except ClusterError as error:
        raise UserError(str(error)) from None


def _opened(out: Path) -> Acceptance | None:
    """Make the output directory; return what an earlier call wrote there.

    Raises:
        UserError: It is no directory for the acceptance.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: expected a directory")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} can't be made: {error.strerror}") from None
    before = Acceptance.read_or_none(out)
    # A call that is killed may leave its lock.
    if before is None and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(f"--out {out} is not empty: give another directory")
    return before


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Keep other calls out of the directory.

    Raises:
        UserError: Another one is at work there, or nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(out / LOCK, wait=False))
        except BlockingIOError:
            raise UserError(f"another acceptance is at work in {out}: wait for it") from None
        except OSError as error:
            raise UserError(f"--out {out} can't be written: {error.strerror}") from None
        yield


@contextmanager
def _own_cache(out: Path) -> Iterator[None]:
    """Let all programs keep their caches in the directory, so that no compilation is older."""
    before = os.environ.get("SKNET_CACHE")
    os.environ["SKNET_CACHE"] = str(out / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SKNET_CACHE"]
        else:
            os.environ["SKNET_CACHE"] = before


def _bench(setting: Setting, data: str, out: Path, machine: Machine) -> Bench:
    directory = out / LINES_DIRECTORY
    return Bench(
        setting=setting,
        data=data,
        directory=directory,
        ascend=machine.ascend,
        inputs={
            **machine.inputs,
            "data": data,
            "device_target": setting.device_target,
            "cards": str(setting.cards),
            "miniature": str(setting.miniature),
        },
        trainings=Trainings(directory, _say),
    )


def _run_lines(
    record: Acceptance, lines: tuple[Line, ...], bench: Bench, only: list[str]
) -> Acceptance:
    """Run the lines that have to be run, and write the record after each of them."""
    chosen = {line.name for line in lines}
    if only:
        record, chosen = _forget(record, lines, bench, only)
    for line in lines:
        before = record.line(line.name)
        if line.name not in chosen:
            continue
        if before.is_current(bench.inputs_of(line)):
            _say(f"{results.summary(before)} (of {before.ended})")
            continue
        missing = [name for name in line.needs if record.line(name).status != "pass"]
        if line.not_run:
            result = results.not_run(line, line.not_run)
        elif missing:
            status = record.line(missing[0]).status
            result = results.not_run(line, f"needs line {missing[0]}: {status}")
        else:
            bench.trainings.clear(line.name)
            bench.failed = {each.name for each in record.lines if each.status == "fail"}
            result = _run_line(line, bench)
        record = record.with_line(result)
        if line.name == "data":
            record, outdated = _without_outdated(record, lines, bench)
            chosen |= outdated
        record.write_to(bench.directory.parent)
        _say(results.summary(result))
    return record


def _forget(
    record: Acceptance, lines: tuple[Line, ...], bench: Bench, only: list[str]
) -> tuple[Acceptance, set[str]]:
    """Forget what the lines of --only have measured; return the record, and the lines to run.

    These are also the lines that were reached before and read the same trainings, or waited for
    one of these lines; and lines that these need and that have no result.
    """
    asked = [line for line in lines if line.name in only and not line.not_run]
    trainings = {name for line in asked for name in line.trainings}
    chosen = set(only)
    for line in lines:
        before = record.line(line.name)
        if line.not_run or before.reason == results.NOT_REACHED:
            continue
        waited = before.inputs is None and not chosen.isdisjoint(line.needs)
        if waited or not trainings.isdisjoint(line.trainings):
            chosen.add(line.name)
    for line in reversed(lines):
        if line.name in chosen and not line.not_run:
            chosen |= {name for name in line.needs if record.line(name).inputs is None}
    for line in lines:
        if line.name in chosen:
            record = record.with_line(results.not_run(line, results.NOT_REACHED))
    # What an interruption leaves must not look like the earlier result.
    record.write_to(bench.directory.parent)
    for name in trainings:
        shutil.rmtree(bench.directory / name, ignore_errors=True)
    if others := [line.name for line in lines if line.name in chosen - set(only)]:
        _say(f"also run, because of common trainings or needs: {', '.join(others)}")
    return record, chosen


def _without_outdated(
    record: Acceptance, lines: tuple[Line, ...], bench: Bench
) -> tuple[Acceptance, set[str]]:
    """Return the record without results that other inputs gave, and the names of their lines."""
    outdated: dict[str, list[str]] = {}
    for line in lines:
        before = record.line(line.name)
        if before.inputs is not None and (changes := before.changed(bench.inputs_of(line))):
            outdated.setdefault("; ".join(changes), []).append(line.name)
            record = record.with_line(results.not_run(line, results.NOT_REACHED))
    for changed, names in outdated.items():
        _say(f"no longer valid ({changed}): {', '.join(names)}")
    return record, {name for names in outdated.values() for name in names}


def _run_line(line: Line, bench: Bench) -> LineResult:
    """Measure and judge a line; whatever goes wrong makes it fail."""
    out = bench.directory.parent
    own = bench.directory / line.name
    own.mkdir(parents=True, exist_ok=True)
    began, wrong = time.monotonic(), []
    measured = Measured({}, own)
    try:
        measured = CHECKS[line.name](bench)
    except LineError as error:
        wrong.append(str(error))
        measured = Measured({}, error.log or own)
    except UserError as error:
        wrong.append(str(error))
    except Exception as error:  # noqa: BLE001 (the other lines are still to be run)
        log = own / "error.txt"
        log.write_text(traceback.format_exc(), "utf-8")
        wrong.append(f"{type(error).__name__}: {error}".partition("\n")[0])
        measured = Measured({}, log)
    log = measured.log
    return results.ended(
        line,
        measured.figures,
        wrong=wrong,
        notes=measured.notes,
        minutes=(time.monotonic() - began) / 60,
        log=str(log.relative_to(out) if log.is_relative_to(out) else log),
        # Now: the line data has made the shards.
        inputs=bench.inputs_of(line),
    )


def _say(text: str) -> None:
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = argparse.ArgumentParser(
        prog="python -m flows.acceptance", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    result.add_argument(
        "--device_target",
        choices=CHOICES,
        help="auto: Ascend if this machine has cards and their driver, else CPU (default: auto)",
    )
    result.add_argument(
        "--data", help="directory of ImageNet, or of the shards that `sknet.convert` made of it"
    )
    result.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory for the page and everything else: new, empty, or that of a call to resume; "
        "with several hosts, on a file system that they share",
    )
    result.add_argument(
        "--cards",
        type=positive_int,
        help=f"ranks on each host (default: {PUBLISHED_CARDS}, in miniature {MINIATURE_CARDS})",
    )
    result.add_argument(
        "--hosts",
        type=positive_int,
        default=1,
        help="hosts of the Ray cluster to which this one belongs, for the last line (default: 1)",
    )
    result.add_argument(
        "--miniature",
        action="store_true",
        help="small trainings on digits, on any machine; figures of speed are not judged",
    )
    result.add_argument(
        "--only",
        action="append",
        default=[],
        choices=tuple(CHECKS),
        metavar="LINE",
        help="measure this line anew, and with it the lines that read the same trainings and those "
        "that it needs; may be repeated",
    )
    return result


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_interruptible(partial(_run, arguments))


def _run(arguments: argparse.Namespace) -> ExitCode:
    try:
        return ExitCode.DONE if main(arguments) else ExitCode.FAILED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return ExitCode.USER_ERROR


if __name__ == "__main__":
    sys.exit(run(parser().parse_args()))
