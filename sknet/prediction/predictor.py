"""A trained network that predicts images, with the preprocessing of its evaluation."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

import numpy as np

from sknet.data.reading.preprocessing import network_input
from sknet.data.reading.threads import BATCHES_AHEAD, in_order, read_ahead, usable_threads
from sknet.device import choose_device
from sknet.errors import NonFiniteLossError, SampleError, UserError
from sknet.evaluation.calibration import scaled_top
from sknet.evaluation.predicting import logits_of
from sknet.evaluation.predictions import BATCH_SIZE, Floats, Forward, probabilities
from sknet.models import create_model, fold
from sknet.models.weights import load_weights, source_of
from sknet.prediction.checkpoints import describe
from sknet.prediction.exported import Exported, classes_of, forward_of, read_exported
from sknet.prediction.inputs import ImageInput, pixels_of, several
from sknet.prediction.results import ClassProbability, Prediction, Unreadable
from sknet.prediction.stores import REF, StoredCheckpoint, stored_checkpoint
from sknet.recipe import Recipe
from sknet.records.calibration import Calibration, Threshold, threshold_of
from sknet.records.preprocessing import (
    Preprocessing,
    other_preprocessing,
    other_than_source,
)
from sknet.records.training import DECODING_THREADS
from sknet.training.checkpoint import read_state
from sknet.world import ALONE, World, join_world, set_device

TOP = 5
"""Number of classes of a prediction, unless another number is asked for."""

Loaded = tuple[str, Floats | Unreadable]
"""An image's name, and the network's input (3, R, R), or why there is none."""


class Predictor:
    """Predicts images as the evaluation of its network would.

        predictor = Predictor.from_store("artifacts", "production")
        for prediction in predictor(["cat.jpg", "dog.jpg"]):
            print(prediction.name, prediction.probability)

    Images are paths, arrays in uint8 or Pillow images. The networks of a process share MindSpore's
    device and its graph mode, which the constructors set.
    """

    def __init__(
        self,
        forward: Forward,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        *,
        source: str,
        calibration: Calibration | None = None,
        num_threads: int = 1,
        world: World = ALONE,
    ) -> None:
        """Use a network; `from_store` and `from_checkpoint` load one.

        Args:
            forward: The network.
            preprocessing: What an image goes through before the network sees it.
            classes: Names of the classes, in the order of the logits.
            source: Where the network is from, for messages.
            calibration: That of the network's evaluation, if there is one.
            num_threads: Number of threads that decode images.
            world: The ranks that share files among them; see `sknet.prediction.ranks`.
        """
        self.preprocessing = preprocessing
        self.classes = tuple(classes)
        self.source = source
        self.calibration = calibration
        self.num_threads = num_threads
        self.world = world
        self._forward = forward

    @classmethod
    def from_store(
        cls,
        store: str | Path | None = None,
        ref: str = REF,
        *,
        device_target: str | None = None,
        warn: Callable[[str], object] = warnings.warn,
        distribute: bool = False,
    ) -> Self:
        """Load the checkpoint to which a ref of a store points, with its calibration.

        Args:
            store: A path, file:///… or s3://…; None: what SKNET_STORE says, or `artifacts`.
            ref: Name of the ref.
            device_target: CPU, Ascend or auto; None: what the recipe says.
            warn: Called with a line if the checkpoint is marked as suspect.
            distribute: Whether msrun started this process as one of several ranks.

        Raises:
            UserError: There is no such store, ref or checkpoint, or it is damaged.
        """
        return cls.from_stored(
            stored_checkpoint(store, ref),
            device_target=device_target,
            warn=warn,
            distribute=distribute,
        )

    @classmethod
    def from_stored(
        cls,
        stored: StoredCheckpoint,
        *,
        device_target: str | None = None,
        warn: Callable[[str], object] = warnings.warn,
        distribute: bool = False,
    ) -> Self:
        """Load a checkpoint that was found in a store; see `from_store`."""
        if stored.suspect:
            warn(f"{stored.name} is marked as suspect: {stored.suspect}")
        return cls.from_checkpoint(
            stored.directory,
            device_target=device_target,
            calibration=stored.calibration,
            source=stored.name,
            warn=warn,
            distribute=distribute,
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        recipe: Recipe | None = None,
        classes: Sequence[str] | None = None,
        device_target: str | None = None,
        calibration: Calibration | None = None,
        source: str | None = None,
        warn: Callable[[str], object] = warnings.warn,
        distribute: bool = False,
    ) -> Self:
        """Load a checkpoint's directory, or a file of weights.

        Args:
            path: The directory, or the file.
            recipe: Model and preprocessing; needed if there is no state.json beside the weights.
            classes: Names of the classes; needed in the same case. A checkpoint takes its own only.
            device_target: CPU, Ascend or auto; None: what the recipe says.
            calibration: That of the checkpoint's evaluation, if there is one.
            source: Names the checkpoint in messages; None: its path.
            warn: Called with a line if the recipe's preprocessing isn't that of the training, or of
                the library whose weights these are.
            distribute: Whether msrun started this process as one of several ranks.

        Raises:
            UserError: It doesn't exist, is damaged, or something is missing or doesn't fit.
        """
        given = describe(Path(path), recipe, classes)
        recipe = given.recipe
        if given.run:
            read_state(given.weights.parent)
            other = other_preprocessing(recipe, given.run.recipe)
        else:
            other = other_than_source(recipe, source_of(given.weights))
        if other:
            warn(other)
        set_device(choose_device(device_target, recipe).target, jit_level=recipe.jit_level)
        world = join_world(distribute=distribute)
        network = create_model(recipe.model, num_classes=len(given.classes))
        load_weights(network, given.weights)
        network = fold(network)
        network.set_train(False)

        def forward(images: Floats) -> Floats:
            return logits_of(network, images, BATCH_SIZE)

        return cls(
            forward,
            Preprocessing.of(recipe, recipe.image_resize),
            given.classes,
            source=source or str(path),
            calibration=calibration,
            num_threads=usable_threads(DECODING_THREADS),
            world=world,
        )

    @classmethod
    def from_onnx(cls, path: str | Path, *, classes: Sequence[str] | None = None) -> Self:
        """Load an ONNX file that `sknet export` wrote, with its record beside it.

        onnxruntime computes the network on the CPU.

        Args:
            path: The file FILE.onnx; FILE.onnx.json is its record.
            classes: Names of the classes, if the record has none.

        Raises:
            UserError: A file is missing or damaged, they don't belong together, or onnxruntime is
                missing or refuses the file.
        """
        return cls.from_exported(read_exported(Path(path)), classes=classes)

    @classmethod
    def from_exported(cls, exported: Exported, *, classes: Sequence[str] | None = None) -> Self:
        """Load an ONNX file that was read; see `from_onnx`."""
        return cls(
            forward_of(exported),
            exported.record,
            classes_of(exported, classes),
            source=str(exported.file),
            num_threads=usable_threads(DECODING_THREADS),
        )

    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        top: int = TOP,
        error_rate: float | None = None,
    ) -> list[Prediction]:
        """Return a prediction for each image, in their order.

        Args:
            images: Images, one image, or an array (N, height, width, 3) of N images.
            top: Number of classes of each prediction.
            error_rate: See `threshold`; predictions below it are unsure.

        Raises:
            SampleError: A file can't be read; `stream` goes on with the next one.
            UserError: An image is none, or the error rate can't be kept.
        """
        found = []
        for each in self.stream(several(images), top=top, error_rate=error_rate):
            if isinstance(each, Unreadable):
                raise SampleError(f"{each.file} can't be predicted: {each.reason}")
            found.append(each)
        return found

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        top: int = TOP,
        error_rate: float | None = None,
    ) -> Iterator[Prediction | Unreadable]:
        """Yield a prediction for each image, or why it can't be read, in their order.

        Up to `DECODING_THREADS` threads read ahead. The results depend neither on their number nor
        on what else is predicted.

        Args:
            images: The images.
            top: Number of classes of each prediction.
            error_rate: See `threshold`; predictions below it are unsure.

        Raises:
            UserError: An image is none, the number of classes is not positive, or the error rate
                can't be kept.
            NonFiniteLossError: The weights have diverged.
        """
        if top < 1:
            raise UserError(f"top is {top}, expected at least 1")
        threshold = None if error_rate is None else self.threshold(error_rate)
        with closing(read_ahead(self._batches(images), BATCHES_AHEAD)) as ahead:
            for batch in ahead:
                inputs = [image for _, image in batch if not isinstance(image, Unreadable)]
                rows = iter(self._predicted(inputs, top) if inputs else ())
                for name, image in batch:
                    if isinstance(image, Unreadable):
                        yield image
                        continue
                    found, calibrated = next(rows)
                    if not np.isfinite(found[0].probability):
                        raise NonFiniteLossError(
                            f"the logits of {name} are not finite: the weights of {self.source} "
                            "have diverged"
                        )
                    unsure = None
                    if threshold is not None and calibrated is not None:
                        unsure = calibrated < threshold.probability
                    yield Prediction(name, found, calibrated, unsure)

    def threshold(self, error_rate: float) -> Threshold:
        """Return the lowest calibrated probability above which predictions keep an error rate.

        It holds for images like those of the validation split.

        Args:
            error_rate: Largest fraction of wrong predictions among those that are not unsure.

        Raises:
            UserError: There is no calibration, or no threshold keeps the rate.
        """
        return threshold_of(self.calibration, error_rate, self.source)

    def _batches(self, images: Iterable[ImageInput]) -> Iterator[list[Loaded]]:
        batch: list[Loaded] = []
        for loaded in in_order(self._load, enumerate(images), self.num_threads):
            batch.append(loaded)
            if len(batch) == BATCH_SIZE:
                yield batch
                batch = []
        if batch:
            yield batch

    def _load(self, placed: tuple[int, ImageInput]) -> Loaded:
        """Return an image's name, and what the network sees of it in its evaluation."""
        place, image = placed
        name, pixels = pixels_of(image, place)
        if isinstance(pixels, Unreadable):
            return name, pixels
        return name, network_input(pixels, self.preprocessing)

    def _predicted(
        self, inputs: list[Floats], top: int
    ) -> Iterator[tuple[tuple[ClassProbability, ...], float | None]]:
        """Yield the most probable classes of each input, and its calibrated probability."""
        logits = self._forward(np.stack(inputs))
        with np.errstate(invalid="ignore"):
            found = probabilities(logits)
            calibrated = (
                scaled_top(found, 1 / self.calibration.temperature) if self.calibration else None
            )
        order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
        for row, labels in enumerate(order.tolist()):
            classes = tuple(
                ClassProbability(label, self.classes[label], float(found[row, label]))
                for label in labels
            )
            yield classes, None if calibrated is None else float(calibrated[row])
