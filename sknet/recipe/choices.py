"""The choices of a recipe by topic; `Recipe` has all of them as flat keys.

Names and meanings are MindCV's where MindCV has the key.
"""

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
    ClassWeights,
    ColorJitter,
    Count,
    EraseValue,
    Fraction,
    NonNegative,
    Range,
    Real,
    Shuffle,
    Whole,
    refuse_bool,
)

Layer = Literal["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
Sampler = Literal["uniform", "balanced", "sqrt"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
EvalPreprocessing = Literal["mindcv", "pillow"]

DEFAULT_PARTS = 8
DEFAULT_WINDOW = 1 << 15


class Choices(BaseModel):
    """A frozen group of choices. Unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelChoices(Choices):
    """The network, and the weights that it starts from."""

    model: str
    """Name of the network; `sknet models` lists them."""
    num_classes: Count | None = None
    """Number of classes, which must be the data set's; null: as many as the data set has."""
    drop_path_rate: Annotated[Fraction, Field(lt=1)] = 0.0
    """Probability that a sample skips the last block in training; it grows linearly with depth."""
    ckpt_path: str = ""
    """Weights to start from, of this project, MindCV or timm: a file, or a checkpoint's directory.
    The path is not part of the digest."""
    ckpt_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the file at ckpt_path; computed when the recipe is loaded, unless given."""
    replace_head: bool = False
    """Whether the classifier starts from random weights, as for another number of classes."""
    freeze: tuple[Layer, ...] = ()
    """Layers whose weights and BatchNorm statistics stay as they start."""

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


class DataChoices(Choices):
    """How images become the network's input, in training and in evaluation."""

    image_resize: Annotated[Count, Field(ge=32)] = 224
    """Side of the square input, in pixels."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Range of the random crop's area, as a fraction of the image's area."""
    ratio: Range = (0.75, 1.333)
    """Range of the random crop's width divided by its height."""
    hflip: Fraction = 0.5
    """Probability of a flip that swaps left and right."""
    vflip: Fraction = 0.0
    """Probability of a flip that swaps top and bottom."""
    color_jitter: ColorJitter | None = (0.4, 0.4, 0.4, 0.0)
    """Brightness, contrast and saturation are multiplied by random factors in 1 ± this: one number
    for all three, or one for each; a fourth number shifts the hue by up to this much. null: none.
    auto_augment replaces it. The default is MindCV's."""
    auto_augment: AutoAugmentText | None = None
    """`autoaug`, `trivialaugwide` or RandAugment as `randaug-m9-n2` (magnitude 9, 2 operations)."""
    interpolation: Interpolation = "bilinear"
    """Filter with which images are resized, in training and in evaluation."""
    antialias: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Whether training averages over all pixels of a crop that it shrinks, as timm, torchvision and
    Pillow do. MindCV doesn't, and it takes more time."""
    re_prob: Fraction = 0.0
    """Probability of random erasing: a rectangle of the image is filled."""
    re_scale: tuple[Fraction, Fraction] = (0.02, 0.33)
    """Range of the rectangle's area, as a fraction of the image's area."""
    re_ratio: Range = (0.3, 3.3)
    """Range of the rectangle's width divided by its height."""
    re_value: EraseValue = (0.0, 0.0, 0.0)
    """What fills the rectangle, after normalisation: a number, one for each channel, or `random`
    for values of a standard normal distribution."""
    re_max_attempts: Count = 10
    """Number of rectangles to try; if none fits within the image, nothing is erased."""
    mixup: NonNegative = 0.0
    """Alpha of the beta distribution from which mixup draws its weights; 0: no mixup."""
    cutmix: NonNegative = 0.0
    """Alpha of the beta distribution from which CutMix draws its areas; 0: no CutMix. If mixup is
    on too, each step uses one of the two, chosen with probability 1/2."""
    cutmix_prob: Fraction = 1.0
    """Probability that the images of a step are mixed, by mixup or by CutMix."""
    crop_pct: Annotated[Fraction, Field(gt=0)] = 0.875
    """Evaluation resizes the shorter side to image_resize / crop_pct, rounded down as in MindCV,
    then crops the centre."""
    eval_preprocessing: Annotated[
        EvalPreprocessing, Field(exclude_if=lambda value: value == "mindcv")
    ] = "mindcv"
    """How evaluations, predictions and exports resize and crop. pillow: as Pillow, torchvision and
    timm, whose filters average over all pixels when an image is shrunk (antialiasing). mindcv: as
    MindCV, whose filters don't. A recipe file without the key means pillow, unless it is MindCV's;
    a stored recipe without it is from before there was a choice, and means mindcv."""
    val_resolutions: tuple[Annotated[Count, Field(ge=32)], ...] = ()
    """Further sides, in pixels, at which `sknet validate` evaluates, with the same crop_pct. It
    always evaluates at image_resize; training evaluates at image_resize only."""
    mean: Channels = (123.675, 116.28, 103.53)
    """Mean of red, green and blue that is subtracted from values in 0 … 255; ImageNet's."""
    std: Channels = (58.395, 57.12, 57.375)
    """Standard deviation of red, green and blue in 0 … 255, by which is divided; ImageNet's."""
    normalise_on: Annotated[
        Literal["auto", "host", "device"], Field(exclude_if=lambda value: value == "auto")
    ] = "auto"
    """Where training normalises pixels by mean and std; the numbers are equal. device: images
    travel to it as bytes, a quarter of the size. auto: on the device on Ascend, on the host on CPU.
    Recipes with random erasing, mixup or CutMix normalise on the host."""
    num_parallel_workers: Count = 2
    """Threads of each rank that decode and augment; at most as many as the machine has processors.
    Their number changes nothing in what is trained."""

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
    def mixes(self) -> bool:
        """Whether training mixes images, so that its labels are fractions of classes."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides at which `sknet.validate` evaluates, in pixels; image_resize first."""
        others = (side for side in self.val_resolutions if side != self.image_resize)
        return (self.image_resize, *others)


class OrderChoices(Choices):
    """The order in which training reads samples."""

    shuffle: Annotated[Shuffle, Field(exclude_if=lambda value: value == "full")] = "full"
    """full: all samples of the epoch are shuffled together, which needs all shards from its first
    step on. blocks: an epoch reads shards in a random order, a few at a time, and shuffles their
    samples in windows."""
    shuffle_parts: Annotated[Count, Field(exclude_if=lambda value: value == DEFAULT_PARTS)] = (
        DEFAULT_PARTS
    )
    """Parts into which shuffle blocks divides the shards of an epoch; each step takes equally many
    samples of every part, so that they must divide the global batch. Hosts whose number divides the
    parts each need only the shards of their own."""
    shuffle_window: Annotated[Count, Field(exclude_if=lambda value: value == DEFAULT_WINDOW)] = (
        DEFAULT_WINDOW
    )
    """Samples of a part that shuffle blocks shuffles together."""

    @model_validator(mode="after")
    def _consistent_order(self) -> Self:
        if self.shuffle == "full":
            for key, default in (
                ("shuffle_parts", DEFAULT_PARTS),
                ("shuffle_window", DEFAULT_WINDOW),
            ):
                if getattr(self, key) != default:
                    raise ValueError(f"{key} is for shuffle blocks, but shuffle is full")
        return self


class BatchChoices(Choices):
    """The number of samples of one step."""

    batch_size: Count | None = None
    """Samples per device and forward pass, as in MindCV. Give either this or global_batch_size."""
    global_batch_size: Count | None = None
    """Samples per step, over all devices and their accumulated passes, which must divide it."""
    reference_global_batch_size: Count | None = None
    """Global batch for which lr was tuned: lr scales linearly with the actual one. null: lr is
    taken as it is."""
    gradient_accumulation_steps: Count = 1
    """Forward and backward passes of a step, whose gradients are summed before the one update. With
    batch_size, the global batch is batch_size x devices x this."""

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
    """Epochs, and the learning rate of each step."""

    epoch_size: Count
    """Number of epochs."""
    scheduler: Literal[
        "cosine_decay", "constant", "step_decay", "multi_step_decay", "one_cycle"
    ] = "cosine_decay"
    """Shape of the learning rate after the warm-up; it changes every step."""
    lr: Annotated[Real, Field(gt=0)]
    """Peak learning rate."""
    min_lr: NonNegative = 0.0
    """Learning rate at the end of cosine_decay and one_cycle."""
    warmup_epochs: Whole = 0
    """Epochs in which the rate grows linearly to lr; with one_cycle the epochs of its rise (0:
    three tenths of the training)."""
    warmup_factor: Fraction | None = None
    """Fraction of lr with which the warm-up starts at the first step, as in MindCV. null: the rate
    grows from 0, reached one step before the first."""
    decay_epochs: Count | None = None
    """Epochs after the warm-up until cosine_decay ends (null: all), or between two decays of
    step_decay, which needs it."""
    decay_rate: Annotated[Fraction, Field(gt=0)] = 0.9
    """Factor of each decay of step_decay and multi_step_decay."""
    multi_step_decay_milestones: tuple[Count, ...] = (30, 60, 90)
    """Epochs after the warm-up at which multi_step_decay decays."""

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
            raise ValueError("step_decay needs decay_epochs, the epochs between two decays")
        milestones = list(self.multi_step_decay_milestones)
        if not milestones or milestones != sorted(set(milestones)):
            raise ValueError(
                f"multi_step_decay_milestones is {milestones}, expected increasing epochs"
            )
        return self


class OptimizerChoices(Choices):
    """The loss, the optimizer, and the average of the weights."""

    loss: Literal["CE", "BCE"] = "CE"
    """CE: cross entropy over the classes. BCE: binary cross entropy of each class."""
    label_smoothing: Fraction = 0.0
    """Fraction of the target that is spread evenly over all classes."""
    opt: Literal["momentum", "sgd", "adamw", "lamb"] = "momentum"
    """Optimizer. momentum and sgd add the weight decay to the gradient; adamw and lamb decouple
    it."""
    momentum: Fraction = 0.9
    """Momentum of momentum and sgd."""
    use_nesterov: bool = False
    """Whether momentum and sgd use Nesterov's form."""
    weight_decay: NonNegative = 0.0
    """Factor of the weight decay; 0: none."""
    weight_decay_filter: Literal["disable", "auto", "norm_and_bias"] = "norm_and_bias"
    """Parameters without weight decay. disable: none. auto: BatchNorm's scale and shift.
    norm_and_bias: those and all biases."""
    clip_grad: bool = False
    """Whether to clip gradients, after they have been averaged over all samples of the step."""
    clip_value: Annotated[Real, Field(gt=0)] = 15.0
    """Limit of the clipping."""
    clip_mode: Literal["norm", "value"] = "norm"
    """What clip_value limits. norm: the norm of all gradients together, as in MindCV. value: each
    element."""
    ema: bool = False
    """Whether to keep an exponential moving average of weights and statistics; evaluations use
    it."""
    ema_decay: Annotated[Fraction, Field(lt=1)] = 0.9999
    """Weight of the old average; after t updates times 1 - exp(-t / 2000), as in MindCV."""

    @model_validator(mode="after")
    def _consistent_optimizer(self) -> Self:
        if self.use_nesterov and (self.opt not in ("momentum", "sgd") or not self.momentum):
            raise ValueError("use_nesterov needs opt momentum or sgd, and a momentum above 0")
        return self


class RarityChoices(Choices):
    """How much rare classes count in training."""

    sampler: Annotated[Sampler, Field(exclude_if=lambda value: value == "uniform")] = "uniform"
    """How often samples are read. uniform: each once in an epoch. balanced: all classes equally
    often. sqrt: each class in proportion to the square root of its number of samples. An epoch has
    the same number of steps with each of them."""
    class_weights: Annotated[ClassWeights, Field(exclude_if=lambda value: value == "none")] = "none"
    """Factors of the loss of each class's samples, scaled so that their mean over the samples that
    are read is 1. balanced: the reciprocal of how often the sampler reads the class. A list: one
    number for each class, in the order of the data set's classes."""
    logit_adjustment: Annotated[NonNegative, Field(exclude_if=lambda value: not value)] = 0.0
    """Training adds this times the logarithm of each class's share of the samples that are read to
    its logit (Menon et al. 2021, with 1); evaluations don't. 0: no adjustment."""

    @model_validator(mode="after")
    def _consistent_rarity(self) -> Self:
        chosen = {
            "sampler balanced": self.sampler == "balanced",
            "class_weights balanced": self.class_weights == "balanced",
            f"logit_adjustment {self.logit_adjustment}": self.logit_adjustment > 0,
        }
        both = [name for name, on in chosen.items() if on]
        if len(both) > 1:
            raise ValueError(
                f"{' and '.join(both)} each make all classes count equally: choose one of them"
            )
        return self


class PrecisionChoices(Choices):
    """Mixed precision and its loss scale."""

    amp_level: Literal["O0", "O2", "O3"] = "O0"
    """O0: float32. O2: float16 except BatchNorm. O3: float16. Weights, loss, gradients and
    evaluations are float32 at every level."""
    loss_scale_type: Literal["fixed", "dynamic"] = "fixed"
    """fixed, or dynamic: halved at an overflow, doubled after 2000 steps without one."""
    loss_scale: Annotated[Real, Field(ge=1, le=1 << 24)] = 1.0
    """Factor of the loss in the backward pass; the first one, if dynamic."""
    drop_overflow_update: bool = False
    """Whether a step whose gradients overflow leaves the weights unchanged."""

    @model_validator(mode="after")
    def _consistent_precision(self) -> Self:
        if self.loss_scale_type == "dynamic" and not self.drop_overflow_update:
            raise ValueError(
                "loss_scale_type dynamic drops an overflow's update: set drop_overflow_update true"
            )
        return self


class RunChoices(Choices):
    """How the run is executed, saved, logged and promoted."""

    device_target: Annotated[Literal["auto", "CPU", "Ascend"], Field(exclude=True)] = "auto"
    """The device; the option --device_target replaces it. auto: Ascend if this machine has cards
    and their driver, else CPU. Not part of the digest: the run records the device that it uses."""
    mode: Annotated[Literal[0, 1], BeforeValidator(refuse_bool)] = 0
    """0: graph mode, compiled once. 1: PyNative mode, for debugging."""
    jit_level: Annotated[
        Literal["O0", "O1", "O2"] | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """MindSpore's level of graph optimisation on Ascend; null: MindSpore's own default. O2, with
    which MindCV published its figures, is deprecated since MindSpore 2.9."""
    seed: Annotated[Whole, Field(lt=1 << 32)] = 42
    """Seed of the weights, the order of samples, the augmentation and drop_path."""
    checkpoint_every_steps: Count | None = None
    """Steps between two checkpoints within an epoch; null: none."""
    checkpoint_every_epochs: Annotated[Count, Field(exclude_if=lambda value: value == 1)] = 1
    """Epochs between two checkpoints at the ends of epochs; MindCV's ckpt_save_interval. The best
    evaluation so far and the end of the training always get one."""
    keep_checkpoint_max: Annotated[Count, Field(ge=2)] = 3
    """Number of newest checkpoints to keep. Not part of a training's key."""
    val_interval: Count = 1
    """Epochs between two evaluations while training; the last epoch is always evaluated."""
    log_interval: Count = 50
    """Steps between two lines of metrics.jsonl. Not part of a training's key."""
    min_accuracy: Fraction = 0.0
    """Lowest accuracy@1, a fraction, at which a checkpoint is promoted. Not part of a training's
    key: with another floor, the same checkpoint is judged again."""
