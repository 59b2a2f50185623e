"""What can be asked of the dataset."""

from __future__ import annotations

from pydantic import Field, model_validator

from workbench.config.params import StageParams


class DatasetParams(StageParams):
    validation: float = Field(default=0.01, ge=0.0, le=0.5)  # share of the documents
    test: float = Field(default=0.01, ge=0.0, le=0.5)

    @model_validator(mode="after")
    def _leaves_something(self) -> DatasetParams:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation and test together leave nothing to train on")
        return self
