"""Settings of the tests; the addresses of the running functions come from `npm run test:airflow`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from airflow.dag_processing.dagbag import DagBag


@dataclass(frozen=True)
class Photos:
    """Drawn photos: a folder good to train on, one with a single class, which ingest refuses; and who works on them."""

    good: str
    one_class: str
    gateway: str


@pytest.fixture(scope="session")
def photos() -> Photos:
    """Where the photos of the tests are."""
    return Photos(
        os.environ["DANDELION_TEST_PHOTOS"],
        os.environ["DANDELION_TEST_ONE_CLASS"],
        os.environ["DANDELION_TEST_GATEWAY"],
    )


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    """The DAGs as Airflow reads them."""
    return DagBag(
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"],
        bundle_name="dags-folder",
    )
