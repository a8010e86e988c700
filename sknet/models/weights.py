"""Load and save weights under the names of this project, of timm and of MindCV."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sknet.errors import UserError
from sknet.models.sknet import SKNet
from sknet.models.weight_files import Values, printable, read_weights
from sknet.records.training import MODEL_FILE

Source = Literal["sknet", "mindcv", "timm"]

HEAD = ("fc.weight", "fc.bias")
# Parameters of a training step besides the network's: optimizer, average and loss scale.
STATE = ("learning_rate", "global_step", "momentum", "loss_scale", "loss_scale_steps")
STATE_PREFIXES = ("moments.", "accum.", "stat.", "ema.")
AVERAGE = "ema."
# Patterns from our names to those of a source, applied in this order.
_UNIT = (
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.bn\.", "bn1."),
    (r"\.attention\.reduce\.conv\.", ".attn.fc_reduce."),
    (r"\.attention\.reduce\.bn\.", ".attn.bn."),
    (r"\.attention\.select\.", ".attn.fc_select."),
)
_RULES: dict[Source, tuple[tuple[str, str], ...]] = {
    "sknet": (),
    "timm": (
        *_UNIT,
        (r"\.downsample\.conv\.", ".downsample.0."),
        (r"\.downsample\.bn\.", ".downsample.1."),
        (r"\.gamma$", ".weight"),
        (r"\.beta$", ".bias"),
        (r"\.moving_mean$", ".running_mean"),
        (r"\.moving_variance$", ".running_var"),
    ),
    "mindcv": (
        *_UNIT,
        (r"\.downsample\.conv\.", ".down_sample.0."),
        (r"\.downsample\.bn\.", ".down_sample.1."),
        (r"(\.paths\.\d+)\.conv\.", r"\1.features.0."),
        (r"(\.paths\.\d+)\.bn\.", r"\1.features.1."),
        (r"(\.conv\d)\.conv\.", r"\1.0."),
        (r"(\.conv\d)\.bn\.", r"\1.1."),
        (r"^fc\.", "classifier."),
    ),
}
# A name that only files of this source have.
_SIGNS: dict[Source, str] = {
    "sknet": "stem.conv.weight",
    "timm": "bn1.running_mean",
    "mindcv": "classifier.weight",
}


def name_in(source: Source, name: str) -> str:
    """Return the source's name of a parameter of ours."""
    for pattern, replacement in _RULES[source]:
        name = re.sub(pattern, replacement, name)
    return name


def load_weights(
    network: nn.Cell,
    path: str | Path,
    source: Literal["auto"] | Source = "auto",
    *,
    replace_head: bool = False,
) -> list[str]:
    """Set every parameter of the network from a file, or change nothing.

    The file must hold each parameter, finite, floating and of the right shape, and nothing else
    apart from optimizer state and timm's batch counters, which are ignored. float16, float64 and,
    in safetensors, bfloat16 are converted to the nearest float32. If the file comes from a training
    of ours with `ema`, the averaged weights are loaded.

    Args:
        network: The network.
        path: A MindSpore checkpoint, a safetensors file, or the directory of a checkpoint of ours.
        source: Whose names the file has; by default they are recognised.
        replace_head: Whether the classifier keeps its values whatever the file holds for it.

    Returns:
        The names of the parameters that kept their values.

    Raises:
        UserError: The file can't be read or doesn't fit the network.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MODEL_FILE
    values = read_weights(path)
    if source == "auto":
        source = _recognise(values, path)
    if isinstance(network, SKNet):
        _check_form(network, source, path)
    renamed = _renamed(values, _names(network), source)
    if isinstance(network, SKNet):
        if replace_head:
            renamed = {name: value for name, value in renamed.items() if name not in HEAD}
        else:
            _check_head(network, renamed, path)
    kept = list(HEAD) if replace_head else []
    set_exactly(network, renamed, path, kept=kept)
    return kept


def source_of(path: Path) -> Source:
    """Return whose names the weights in a file have.

    Raises:
        UserError: The file can't be read, or has the names of none.
    """
    return _recognise(read_weights(path), path)


def save_safetensors(network: SKNet, path: Path, layout: Literal["timm", "sknet"] = "timm") -> None:
    """Write the weights as float32 safetensors, under timm's names or ours.

    An existing file is replaced only once the new one is complete.

    Raises:
        UserError: The network is folded, or the path can't be written.
    """
    values = {}
    for parameter in network.get_parameters():
        if parameter.name.endswith(".conv.bias"):
            raise UserError("a folded network has no BatchNorm to save: save the one it came from")
        values[name_in(layout, parameter.name)] = np.ascontiguousarray(parameter.asnumpy())
        if layout == "timm" and parameter.name.endswith(".moving_mean"):
            values[_counter(parameter.name)] = np.zeros((), np.int64)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(values, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def set_exactly(
    cell: nn.Cell,
    values: Mapping[str, npt.NDArray[np.generic]],
    file: Path,
    kept: list[str] | None = None,
) -> None:
    """Set all parameters of the cell, or change nothing.

    Args:
        cell: A network or a training step.
        values: The values by the parameters' names.
        file: Where the values come from, for the error.
        kept: Names of parameters that keep their values.

    Raises:
        UserError: Values are missing, unknown or don't fit. The message has the number of faults of
            each kind, and the first three.
    """
    parameters = {p.name: p for p in cell.get_parameters() if p.name not in (kept or ())}
    faults = [("missing", f"{name} is missing") for name in parameters if name not in values]
    faults += [("unknown", f"{printable(n)} is unknown") for n in values if n not in parameters]
    converted: Values = {}
    for name, parameter in parameters.items():
        if name not in values:
            continue
        value, expected = values[name], parameter.asnumpy().dtype
        if value.shape != parameter.shape:
            fault = f"{name} has shape {value.shape}, expected {parameter.shape}"
            faults.append(("of another shape", fault))
        elif not _converts(value.dtype, expected):
            fault = f"{name} is of type {value.dtype}, expected {expected}"
            faults.append(("of another type", fault))
        else:
            with np.errstate(over="ignore"):
                converted[name] = value.astype(expected)
            if not np.isfinite(converted[name]).all():
                faults.append(("not finite", f"{name} has non-finite values"))
    if faults:
        counts = Counter(kind for kind, _ in faults)
        summary = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        first = "; ".join(fault for _, fault in faults[:3])
        raise UserError(f"{file} doesn't fit the model ({summary}): {first}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(converted[name], parameter.dtype))


def _recognise(values: Values, path: Path) -> Source:
    for source, sign in _SIGNS.items():
        if sign in values:
            return source
    some = ", ".join(printable(name) for name in sorted(values)[:3]) or "nothing"
    raise UserError(
        f"{path} has none of the names of sknet, timm or MindCV networks (it holds {some}): "
        "say which source it is from"
    )


def _check_form(network: SKNet, source: Source, path: Path) -> None:
    expected = {"mindcv": "end", "timm": "both"}.get(source)
    if expected and network.architecture.pool_padding != expected:
        which = "whose name ends in" if source == "mindcv" else "without"
        raise UserError(
            f"{path} is from {source}, whose networks compute something else than this one with "
            f"the same weights: use the model {which} _mindcv"
        )


def _check_head(network: SKNet, values: Values, path: Path) -> None:
    bias = values.get(HEAD[1])
    if bias is not None and bias.ndim == 1 and len(bias) != network.num_classes:
        raise UserError(
            f"{path} is for {len(bias)} classes, the network has {network.num_classes}: "
            "load_weights(replace_head=True) keeps the network's own classifier"
        )


def _names(network: nn.Cell) -> list[str]:
    return [parameter.name for parameter in network.get_parameters()]


def _renamed(values: Values, names: list[str], source: Source) -> Values:
    """Return the weights under our names. Arrays that are no weights keep a name unlike ours."""
    ours = {name_in(source, name): name for name in names}
    left_out = {_counter(name) for name in names} if source == "timm" else set(STATE)
    result = {}
    for name, value in values.items():
        if name in ours:
            averaged = AVERAGE + name if source == "sknet" else name
            result[ours[name]] = values.get(averaged, value)
        elif name not in left_out and (source == "timm" or not name.startswith(STATE_PREFIXES)):
            result[f"{name} (not a name in {source})" if name in names else name] = value
    return result


def _counter(name: str) -> str:
    """Return the name of timm's batch counter that goes with a moving mean of ours."""
    return name_in("timm", name).replace(".running_mean", ".num_batches_tracked")


def _converts(given: np.dtype[np.generic], expected: np.dtype[np.generic]) -> bool:
    if expected.kind == "f":
        return given.kind == "f" or given.name == "bfloat16"
    return given == expected
