"""What a recipe may say about convolutional networks: the ``[model.conv]`` table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from snnsim.recipes.spec import Spec

__all__ = ["ConvSpec", "Preset"]

Preset = Literal["vgg11", "vgg-small", "resnet18", "resnet34", "nf-resnet34", "resnet-small"]
STAGES: dict[str, int] = {
    "vgg11": 5,
    "vgg-small": 2,
    "resnet18": 4,
    "resnet34": 4,
    "nf-resnet34": 4,
    "resnet-small": 2,
}


class ConvSpec(Spec):
    """A convolutional network: layers on feature maps instead of hidden layers of one size each.

    Attributes:
        preset: ``vgg11`` (VGG-11), ``resnet18`` and ``resnet34`` (pre-activation), ``nf-resnet34`` (without
            normalisation, standardised weights), and ``vgg-small`` and ``resnet-small`` for images of 8 to 34 pixels.
        input: Channels, height and width of the data; units are ``(channel * height + y) * width + x``.
        width: Factor of all numbers of channels.
        stages: First stages that are used (each but a residual network's first halves the maps); none means all.
        norm: ``step`` (batch norm by the statistics of each step), ``time`` (over all steps) or ``weight`` (none;
            convolutions with scaled weight standardisation); none means ``weight`` for ``nf-resnet34``, else ``step``.
        pool: ``average`` or ``max`` in VGG networks.
        stem: First layers of a residual network: ``small`` (3 x 3) or ``large`` (7 x 7 by 2, then pooling by 2); none
            means ``large`` for ``nf-resnet34``, else ``small``.
    """

    preset: Preset
    input: list[int] = Field(min_length=3, max_length=3)
    width: float = Field(default=1.0, gt=0, le=16)
    stages: int | None = Field(default=None, ge=1)
    norm: Literal["step", "time", "weight"] | None = None
    pool: Literal["average", "max"] = "average"
    stem: Literal["small", "large"] | None = None

    @property
    def residual(self) -> bool:
        """Whether the network has residual blocks."""
        return "resnet" in self.preset

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        channels, height, width = self.input
        return channels, height, width

    @property
    def n_stages(self) -> int:
        """Stages that are used."""
        return STAGES[self.preset] if self.stages is None else self.stages

    @property
    def normalisation(self) -> Literal["step", "time", "weight"]:
        """The normalisation that is used."""
        return self.norm or ("weight" if self.preset == "nf-resnet34" else "step")

    @property
    def large_stem(self) -> bool:
        """Whether a residual network begins with a large stem."""
        return (self.stem or ("large" if self.preset == "nf-resnet34" else "small")) == "large"

    @model_validator(mode="after")
    def _check(self) -> ConvSpec:
        if min(self.input) < 1:
            raise ValueError(f"input: expected positive channels, height and width, got {self.input}")
        if self.stages is not None and self.stages > STAGES[self.preset]:
            raise ValueError(f"stages: {self.preset!r} has {STAGES[self.preset]} stages, got {self.stages}")
        if self.preset == "nf-resnet34" and self.normalisation != "weight":
            raise ValueError(f"norm: 'nf-resnet34' has norm 'weight', got {self.norm!r}; use preset 'resnet34'")
        if self.residual and self.pool != "average":
            raise ValueError(f"pool belongs to VGG networks; {self.preset!r} has strides")
        if not self.residual and self.stem is not None:
            raise ValueError(f"stem belongs to residual networks; {self.preset!r} has none")
        return self
