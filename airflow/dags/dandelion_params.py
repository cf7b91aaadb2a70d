"""Params that several DAGs share; a wrong one is refused before anything runs."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import Param

# The functions hold models' names to the same pattern.
MODEL_NAME = r"^[a-z][a-z0-9-]{0,39}$"
SOURCE_URI = r"^(https?|file)://\S+$"
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
