"""Params that several DAGs share; a wrong one is refused before anything runs."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import Param

# What the functions hold requests to; one that they take must not fail here.
MODEL_NAME = r"^[a-z][a-z0-9-]{0,39}$"
SOURCE_URI = r"^(https?|file|s3)://\S+$"
LONGEST_REASON = 500
KINDS = ["manifest", "folder", "archive"]


def source_param() -> Param:
    """Where the photos are; DANDELION_SOURCE_URI gives scheduled runs theirs."""
    described: dict[str, Any] = {
        "type": "string",
        "pattern": SOURCE_URI,
        "description": "Address of the photos",
    }
    default = os.environ.get("DANDELION_SOURCE_URI")
    return Param(default, **described) if default else Param(**described)


def model_param() -> Param:
    """The model to train."""
    default = os.environ.get("MODEL_NAME", "dandelion")
    return Param(
        default,
        type="string",
        pattern=MODEL_NAME,
        description="Name of the model",
    )


def kind_param() -> Param:
    """What the address leads to."""
    default = os.environ.get("DANDELION_SOURCE_KIND", "manifest")
    return Param(default, type="string", enum=KINDS)


def seed_param() -> Param:
    """Same seed, same photos: same model."""
    return Param(1, type="integer", minimum=0)


def force_param() -> Param:
    """Whether to train on photos that the champion learnt from already."""
    return Param(False, type="boolean", description="Train although the photos are those of the champion")


def reason_param() -> Param:
    """For the record."""
    return Param(None, type=["null", "string"], maxLength=LONGEST_REASON, description="Why; for the record")


def canary_param() -> Param:
    """How the new version is let near the traffic; what it leaves out, the settings of deploy say."""
    percent = {"type": "integer", "minimum": 1, "maximum": 100}
    return Param(
        None,
        type=["null", "object"],
        properties={
            "shares": {"type": "array", "items": percent, "minItems": 1, "uniqueItems": True},
            "minSamples": {"type": "integer", "minimum": 1},
            "maxErrorRate": {"type": "number", "minimum": 0, "maximum": 1},
            "maxLatencyRatio": {"type": "number", "minimum": 1},
            "stageTimeoutMs": {"type": "integer", "minimum": 1000},
        },
        additionalProperties=False,
        description='Policy of the canary, such as {"shares": [10, 50, 100]}: percent of the traffic, rising',
    )
