"""Every setting of a model and its training, checked on the way in.

A run starts from a recipe (`recipes/*.yaml`, by name) or from a YAML file, which may
name a recipe as its `base` and then says only what differs. The defaults here are
the choices for what the paper leaves open. Settings are frozen once read.
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from voxpanel.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneSettings(Settings):
    """The speech encoder.

    source: for `transformer`, a folder or a hub id.
    fine_tune: train the encoder too; else it is frozen and its features are cached.
    learning_rate_factor: of the encoder, relative to the stage's learning rate.
    """

    name: Literal["distilled", "transformer", "melbank"] = "distilled"
    source: str | None = None
    fine_tune: bool = False
    freeze_convolutions: bool = True
    gradient_checkpointing: bool = False
    learning_rate_factor: float = Field(1.0, gt=0)


class FusionSettings(Settings):
    """Frames, full band and listening test to one global vector.

    layers: `weighted`, a learned weighted sum, or `last`.
    layer_centre, layer_width: where the weights start, as a share of the depth.
    statistics: what is pooled over frames.
    dim: width of the global vector.
    test_dropout: how often training hides which listening test a rating is from, so
        that the model can answer for none in particular.
    """

    layers: Literal["weighted", "last"] = "weighted"
    layer_centre: float = Field(0.3, ge=0, le=1)
    layer_width: float = Field(0.15, gt=0)
    statistics: tuple[Literal["mean", "deviation", "change"], ...] = ("mean", "deviation", "change")
    fullband: bool = True
    dim: int = Field(128, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    test_dropout: float = Field(0.2, ge=0, lt=1)


class MixtureSettings(Settings):
    """Experts and gate (eq. 1-2).

    residual: add the global vector to the experts' blend, so that what is linear in
        it need not pass through an expert; the last of `hidden` is then its width.
    """

    n_experts: int = Field(4, ge=1)
    hidden: tuple[PositiveInt, ...] = Field((256, 128), min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    gate_hidden: int = Field(64, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_k: int | None = Field(None, ge=1)
    noise: bool = False
    residual: bool = False

    @model_validator(mode="after")
    def check_top_k(self) -> "MixtureSettings":
        """Refuse to keep more experts than there are."""
        if self.top_k is not None and self.top_k > self.n_experts:
            raise ValueError(f"top_k ({self.top_k}) cannot exceed n_experts ({self.n_experts})")
        return self


class BlendSettings(Settings):
    """Simpler opinions beside the mixture's (`model/blend.py`); none by default.

    ridge: share of a ridge regression on pooled features in a member's score.
    penalty: of that ridge, on standardised features.
    prior: share of an earlier model's score.
    model: that model: a name, folder or hub id; it must have the same frozen encoder.
    """

    ridge: float = Field(0.0, ge=0, lt=1)
    penalty: float = Field(300.0, gt=0)
    prior: float = Field(0.0, ge=0, lt=1)
    model: str = "base"

    @model_validator(mode="after")
    def check_shares(self) -> "BlendSettings":
        """Refuse shares that leave nothing to the mixture."""
        if self.ridge + self.prior >= 1:
            raise ValueError("the shares of ridge and prior must leave something to the mixture")
        return self


class LossSettings(Settings):
    """The joint loss (eq. 3-6).

    test_weights: how much each listening test's clips count; 1 for one that is not named.
    listener_bias: train on means from which each listener's own bias was removed.
    balance_tasks: how the tasks' weights move: along the stage's `schedule`, by
        learned `uncertainty`, or by `dynamic` weight averaging.
    """

    beta: float = Field(1.0, gt=0)
    smoothing: float = Field(0.1, ge=0, lt=1)
    diversity: float = Field(0.01, ge=0)
    entropy: float = Field(0.01, ge=0)
    balance: float = Field(0.01, ge=0)
    contrastive: float = Field(0.0, ge=0)
    margin: float = Field(0.1, ge=0)
    test_weights: dict[str, float] = {}
    listener_bias: bool = False
    balance_tasks: Literal["schedule", "uncertainty", "dynamic"] = "schedule"


class OptimizerSettings(Settings):
    """AdamW, warm-up and cosine, clipped gradients."""

    batch_size: int = Field(16, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)


class Stage(Settings):
    """One of the training stages.

    clips: which clips it sees: those whose synthesizer is `named`, the `rated`, or `all`.
    mos, synthesizer: weight of each task at the stage's first and last step (eq. 3).
    patience: epochs without improvement before it stops.
    """

    name: str
    clips: Literal["named", "rated", "all"]
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    mos: tuple[float, float]
    synthesizer: tuple[float, float]
    patience: int = Field(5, ge=1)


class ValidationSettings(Settings):
    """What is held out, and what decides which epoch is kept.

    by: clips that share it are never on both sides.
    folds: the held-out share is one fold of so many.
    members: how many models are trained, each with another fold held out; the
        final score is their mean.
    metric: the number to improve; `system_srcc` breaks ties by the system's MSE,
        then by the utterances' LCC. `last` keeps every stage's last epoch, for folds too
        small to tell epochs apart.
    """

    by: Literal["sentence", "system", "path", "test"] = "sentence"
    folds: int = Field(5, ge=2)
    members: int = Field(1, ge=1)
    metric: Literal["system_srcc", "utterance_lcc", "utterance_mse", "last"] = "system_srcc"

    @model_validator(mode="after")
    def check_members(self) -> "ValidationSettings":
        """Refuse more members than there are folds to hold out."""
        if self.members > self.folds:
            raise ValueError(f"members ({self.members}) cannot exceed folds ({self.folds})")
        return self


class Config(Settings):
    """All settings of a run.

    start: a model (name, folder or hub id) whose weights training starts from; its
        backbone, fusion and mixture have to be the same.
    """

    name: str = "unnamed"
    seed: int = Field(0, ge=0)
    start: str | None = None
    backbone: BackboneSettings = BackboneSettings()
    fusion: FusionSettings = FusionSettings()
    mixture: MixtureSettings | None = MixtureSettings()
    blend: BlendSettings = BlendSettings()
    losses: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    validation: ValidationSettings = ValidationSettings()
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def check_combinations(self) -> "Config":
        """Refuse settings that exclude one another."""
        if self.backbone.name == "transformer" and not self.backbone.source:
            raise ValueError("backbone.source: the transformer needs a folder or a hub id")
        mixture = self.mixture
        if mixture and mixture.residual and mixture.hidden[-1] != self.fusion.dim:
            raise ValueError(
                f"mixture.residual: the experts' last width ({mixture.hidden[-1]}) must be "
                f"fusion.dim ({self.fusion.dim})"
            )
        if self.backbone.fine_tune and (self.blend.ridge or self.blend.prior):
            raise ValueError("blend: a ridge or an earlier model needs a frozen encoder")
        if self.backbone.fine_tune and self.validation.members > 1:
            raise ValueError("validation.members: a fine-tuned encoder has one member")
        return self


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("voxpanel") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def read_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe or a YAML file, then apply overrides.

    Args:
        source: a recipe's name, or the path of a YAML file.
        overrides: `a.b=value` each, value being YAML: `optimizer.batch_size=8`.

    Raises:
        ConfigError: not found, not YAML, an unknown name or a value out of range.
    """
    settings = read_settings(str(source))
    for override in overrides:
        settings = apply_override(settings, override)
    return build_config(settings, str(source))


def build_config(settings: Mapping[str, Any], where: str) -> Config:
    """Check settings and freeze them; `where` is named in the error."""
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(explain(problem, where) for problem in error.errors())
        ) from None


def read_settings(source: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a recipe or a file and put it over its `base`; `above` are those it is the base of."""
    if source in above:
        raise ConfigError(f"{source}: its `base` leads back to itself; name a recipe there")
    settings = parse_yaml(config_text(source), source)
    base = settings.pop("base", None)
    return settings if base is None else merge(read_settings(str(base), (*above, source)), settings)


def config_text(source: str) -> str:
    """Return the text of a recipe or a file."""
    if source in recipe_names():
        return (resources.files("voxpanel") / "recipes" / f"{source}.yaml").read_text("utf-8")
    if not Path(source).is_file():
        known = ", ".join(recipe_names())
        raise ConfigError(f"{source}: no such recipe or file; recipes are {known}")
    try:
        return Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read as UTF-8 text ({error})") from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Return a YAML mapping with text keys."""
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ConfigError(f"{where}: expected settings by name, got {type(settings).__name__}")
    return settings


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put changes over a base, group by group.

    >>> merge({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 9}})
    {'a': {'x': 9, 'y': 2}, 'b': 3}
    """
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(old, value) if both else value  # type: ignore[arg-type]  # both are
    return merged


def apply_override(settings: Mapping[str, Any], override: str) -> dict[str, Any]:
    """Set one `a.b=value`; a number in the path is a place in a list.

    >>> apply_override({"stages": [{"epochs": 3}]}, "stages.0.epochs=5")
    {'stages': [{'epochs': 5}]}
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: expected name=value, such as optimizer.batch_size=8")
    value = parse_yaml(f"value: {text}", f"--set {override}")["value"]
    return merge(settings, nest(settings, path.split("."), value, override))


def nest(settings: Any, names: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    """Wrap a value so that merging it over the settings changes one place."""
    name, *rest = names
    inner = settings.get(name) if isinstance(settings, Mapping) else None
    if not rest:
        return {name: value}
    if isinstance(inner, list):
        place, *deeper = rest
        if not place.isdecimal() or int(place) >= len(inner):
            raise ConfigError(f"--set {override}: {name} has places 0 to {len(inner) - 1}")
        changed = list(inner)
        old = changed[int(place)]
        new = nest(old, deeper, value, override) if deeper else value
        changed[int(place)] = merge(old, new) if deeper else new
        return {name: changed}
    return {name: nest(inner, rest, value, override)}


def explain(problem: Mapping[str, Any], where: str) -> str:
    """Say what is wrong with one setting, and suggest the name that was meant."""
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location)
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        return f"{where} {name}".rstrip() + f": {message}"
    group = settings_group(location[:-1])
    close = difflib.get_close_matches(location[-1], group.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(group.model_fields)}"
    return f"{where} {name}: not a setting here; {hint}"


def settings_group(location: Sequence[str]) -> type[Settings]:
    """Return the class of the settings at a place."""
    group: type[Settings] = Config
    for name in location:
        if name.isdecimal():
            continue
        annotation = group.model_fields[name].annotation
        candidates = [annotation, *get_args(annotation)]
        group = next(
            each for each in candidates if isinstance(each, type) and issubclass(each, Settings)
        )
    return group
