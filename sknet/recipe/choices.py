"""Data and augmentation."""

from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from sknet.recipe.types import (
    AutoAugmentText,
    Channels,
    ColorJitter,
    Count,
    EraseValue,
    NonNegative,
    Range,
    Real,
    Share,
    Whole,
    refuse_bool,
)


class Choices(BaseModel):
    """Frozen, typed, and refusing what it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


Layer = Literal["stem", "layer1", "layer2", "layer3", "layer4", "fc"]


class ModelChoices(Choices):
    """The network, and the weights that it starts from."""

    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: Count | None = None
    """Checked against the data set if given; otherwise as many as the data set has."""
    drop_path_rate: Annotated[Share, Field(lt=1)] = 0.0
    """Probability that a sample skips the last block in training; it grows linearly with depth."""
    ckpt_path: str = ""
    """Weights to start from, of this project, MindCV or timm: a file, or a checkpoint's directory.
    Where they lie is no choice, so it doesn't count in the digest."""
    ckpt_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of that file; filled in when the recipe is loaded."""
    replace_head: bool = False
    """Whether the weights' classifier is left out, as for another number of classes."""
    freeze: tuple[Layer, ...] = ()
    """Layers that keep the weights they start from, and their BatchNorm its statistics."""

    @model_validator(mode="after")
    def _consistent_model(self) -> Self:
        if not (self.ckpt_path or self.ckpt_sha256):
            for key in ("replace_head", "freeze"):
                if getattr(self, key):
                    raise ValueError(f"{key} needs ckpt_path, the weights to start from")
        if len(set(self.freeze)) != len(self.freeze) or len(self.freeze) == len(get_args(Layer)):
            raise ValueError(
                f"freeze is {list(self.freeze)}, expected different layers, and not all of them"
            )
        if self.replace_head and "fc" in self.freeze:
            raise ValueError("freeze has fc, but replace_head starts it from random weights")
        return self


class RunChoices(Choices):
    """How the run goes, is saved and is judged."""

    mode: Annotated[Literal[0, 1], BeforeValidator(refuse_bool)] = 0
    """0: graphs, compiled once. 1: pynative, for looking inside."""
    seed: Annotated[Whole, Field(lt=1 << 32)] = 42
    """Of the weights, the order, the augmentation and drop_path."""
    checkpoint_every_steps: Count | None = None
    """Steps between checkpoints within an epoch; every epoch ends with one in any case."""
    keep_checkpoint_max: Annotated[Count, Field(ge=2)] = 3
    """Newest checkpoints that are kept."""
    val_interval: Count = 1
    """Epochs between evaluations while training; the last epoch is always evaluated."""
    log_interval: Count = 50
    """Steps between lines of progress."""
    min_accuracy: Share = 0.0
    """Floor of accuracy@1, as a share, below which a checkpoint is not promoted."""


class DataChoices(Choices):
    """How images become the network's input, in training and in evaluation."""

    image_resize: Annotated[Count, Field(ge=32)] = 224
    """Side of the square input, in pixels."""
    scale: tuple[Share, Share] = (0.08, 1.0)
    """Range of the random crop's area, as a share of the image's."""
    ratio: Range = (0.75, 1.333)
    """Range of the random crop's width divided by its height."""
    hflip: Share = 0.5
    """Probability of a flip that swaps left and right."""
    vflip: Share = 0.0
    """Probability of a flip that swaps top and bottom."""
    color_jitter: ColorJitter | None = (0.4, 0.4, 0.4, 0.0)
    """Brightness, contrast and saturation are multiplied by factors in 1 ± this: one number for the
    three, or one for each; a fourth one shifts the hue. Not with auto_augment, which replaces it.
    MindCV's default; null for none."""
    auto_augment: AutoAugmentText | None = None
    """`randaug-m9-n2`, `autoaug` or `trivialaugwide`: see sknet.recipe.types."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling in training and evaluation."""
    re_prob: Share = 0.0
    """Probability of erasing a rectangle of an image."""
    re_scale: tuple[Share, Share] = (0.02, 0.33)
    """Range of the rectangle's area, as a share of the image's."""
    re_ratio: Range = (0.3, 3.3)
    """Range of the rectangle's width divided by its height."""
    re_value: EraseValue = (0.0, 0.0, 0.0)
    """What the rectangle is filled with, after normalisation: a number, one for each channel, or
    `random` for values of a standard normal distribution."""
    re_max_attempts: Count = 10
    """Rectangles that are tried; if none fits within the image, it stays as it is."""
    mixup: NonNegative = 0.0
    """Alpha of the beta distribution of mixup's shares; 0 for no mixup."""
    cutmix: NonNegative = 0.0
    """Alpha of the beta distribution of CutMix's shares; 0 for no CutMix. With mixup on too, each
    batch draws one of the two, at even odds."""
    cutmix_prob: Share = 1.0
    """Probability that a batch is mixed, be it by mixup or by CutMix."""
    crop_pct: Annotated[Share, Field(gt=0)] = 0.875
    """Evaluation resizes the shorter side to image_resize / crop_pct, rounded down as MindCV does,
    then crops the centre."""
    val_resolutions: tuple[Annotated[Count, Field(ge=32)], ...] = ()
    """Sides at which `sknet.validate` evaluates beside image_resize, which it always does; at each
    with the same crop_pct. Training evaluates at image_resize only."""
    mean: Channels = (123.675, 116.28, 103.53)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    std: Channels = (58.395, 57.12, 57.375)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    num_parallel_workers: Count = 2
    """Decoding threads of each rank. They draw the augmentations, so the number is a choice of the
    run and not of the machine."""

    @model_validator(mode="after")
    def _consistent_data(self) -> Self:
        for key in ("scale", "ratio", "re_scale", "re_ratio"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} is [{low}, {high}], expected 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected values above 0")
        if len({*self.val_resolutions}) < len(self.val_resolutions):
            raise ValueError(
                f"val_resolutions is {list(self.val_resolutions)}, expected different sides"
            )
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """At which `sknet.validate` evaluates: image_resize first."""
        others = (side for side in self.val_resolutions if side != self.image_resize)
        return (self.image_resize, *others)


class BatchChoices(Choices):
    """Samples of one update of the weights."""

    batch_size: Count | None = None
    """Samples per device and forward pass, as in MindCV. Either this or global_batch_size."""
    global_batch_size: Count | None = None
    """Samples per step over all devices and their accumulated passes; the product of the two must
    divide it."""
    reference_global_batch_size: Count | None = None
    """The global batch for which lr was tuned: lr scales linearly with the actual one."""
    gradient_accumulation_steps: Count = 1
    """Forward and backward passes of a step, whose gradients are summed before its one update. The
    global batch is batch_size x devices x this."""

    @model_validator(mode="after")
    def _consistent_batch(self) -> Self:
        if (self.batch_size is None) == (self.global_batch_size is None):
            raise ValueError("give either batch_size (per device) or global_batch_size, not both")
        if (self.global_batch_size or 0) % self.gradient_accumulation_steps:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} can't be divided among "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )
        return self


class ScheduleChoices(Choices):
    """Epochs and the learning rate of each step; see sknet.training.schedule."""

    epoch_size: Count
    """Number of epochs."""
    scheduler: Literal[
        "cosine_decay", "constant", "step_decay", "multi_step_decay", "one_cycle"
    ] = "cosine_decay"
    """Shape of the learning rate after the warm-up, per step."""
    lr: Annotated[Real, Field(gt=0)]
    """Peak learning rate."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end of cosine_decay and one_cycle."""
    warmup_epochs: Whole = 0
    """Epochs of linear growth to lr; of one_cycle, its rise (0: three tenths of the training)."""
    warmup_factor: Share | None = None
    """Share of lr at the first step of the warm-up, as in MindCV. null: the growth is from 0, which
    would be the step before the first."""
    decay_epochs: Count | None = None
    """Epochs after the warm-up in which cosine_decay comes to its end (null: all), or between two
    falls of step_decay, which needs it."""
    decay_rate: Annotated[Share, Field(gt=0)] = 0.9
    """Factor of each fall of step_decay and multi_step_decay."""
    multi_step_decay_milestones: tuple[Count, ...] = (30, 60, 90)
    """Epochs after the warm-up at which multi_step_decay falls."""

    @model_validator(mode="after")
    def _consistent_schedule(self) -> Self:
        if self.warmup_epochs >= self.epoch_size:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}, but epoch_size is {self.epoch_size}: "
                "the warm-up must be shorter than the training"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr is {self.min_lr}, above lr {self.lr}")
        if self.scheduler == "step_decay" and self.decay_epochs is None:
            raise ValueError("step_decay needs decay_epochs, the epochs between two falls")
        milestones = list(self.multi_step_decay_milestones)
        if not milestones or milestones != sorted(set(milestones)):
            raise ValueError(
                f"multi_step_decay_milestones is {milestones}, expected growing epochs"
            )
        return self


class OptimizerChoices(Choices):
    """From logits to an update of the weights; see sknet.training.{loss,optimizer,average}."""

    loss: Literal["CE", "BCE"] = "CE"
    """Cross entropy over the classes, or binary cross entropy of each class."""
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""
    opt: Literal["momentum", "sgd", "adamw", "lamb"] = "momentum"
    """momentum and sgd couple the weight decay with the gradient, adamw and lamb don't."""
    momentum: Share = 0.9
    """Of momentum and sgd."""
    use_nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: NonNegative = 0.0
    """Decay of the weights."""
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = "norm_and_bias"
    """What has no weight decay: nothing, BatchNorm's scale and shift, or those and biases."""
    clip_grad: bool = False
    """Whether gradients are clipped, once they are the mean over all samples of the step."""
    clip_value: Annotated[Real, Field(gt=0)] = 15.0
    """Limit of the clipping."""
    clip_mode: Literal["norm", "value"] = "norm"
    """What is limited: the norm of all gradients together, as in MindCV, or each element."""
    ema: bool = False
    """Whether a moving average of weights and statistics is kept; it is what gets evaluated."""
    ema_decay: Annotated[Share, Field(lt=1)] = 0.9999
    """Share of the old average, times 1 - exp(-t / 2000) after t updates, as in MindCV."""

    @model_validator(mode="after")
    def _consistent_optimizer(self) -> Self:
        if self.use_nesterov and (self.opt not in ("momentum", "sgd") or not self.momentum):
            raise ValueError("use_nesterov needs opt momentum or sgd, and a momentum above 0")
        return self


class PrecisionChoices(Choices):
    """Mixed precision and its loss scale; see sknet.training.step."""

    amp_level: Literal["O0", "O2", "O3"] = "O0"
    """O0: float32. O2: float16, but for BatchNorm. O3: float16. Weights, loss and gradients are
    float32 in any case, and so is an evaluation."""
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    """dynamic: halved at an overflow, doubled after 2000 steps without."""
    loss_scale: Annotated[Real, Field(ge=1, le=1 << 24)] = 1.0
    """Factor of the loss in the backward pass; at the start, if dynamic."""
    drop_overflow_update: bool = False
    """Whether a step whose gradients overflow leaves the weights as they are."""

    @model_validator(mode="after")
    def _consistent_precision(self) -> Self:
        if self.loss_scale_type == "dynamic" and not self.drop_overflow_update:
            raise ValueError(
                "loss_scale_type dynamic drops an overflow's update: set drop_overflow_update true"
            )
        return self
