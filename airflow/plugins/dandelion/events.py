"""CloudEvents 1.0 as the functions take them."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

Event = dict[str, Any]

# RFC 3986 keeps more, but the binding wants space, quote, percent and all beyond ASCII encoded.
_PLAIN = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def event_id(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Id of the event that a task sends.

    Without the try number: a retry sends the same event again, and the ledger answers it with the same run.
    """
    key = json.dumps([dag_id, run_id, task_id, map_index])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def run_id_of_request(source: str, id: str) -> str:
    """Id of the run of `retrain` that a request becomes: a repeated request is the same run."""
    digest = hashlib.sha256(f"{source}\n{id}".encode()).hexdigest()
    return f"requested__{digest[:32]}"


def complete_event(draft: Event, *, dag_id: str, run_id: str, task_id: str, map_index: int) -> Event:
    """Gives a new event its identity.

    A step's result has one already and keeps it: whoever else sends it on (a broker that reconciles) then sends a
    duplicate, not new work.
    """
    if "id" in draft and "source" in draft:
        return draft
    return {
        **draft,
        "specversion": "1.0",
        "id": event_id(dag_id, run_id, task_id, map_index),
        "source": f"/airflow/{quote(dag_id)}",
    }


def to_binary(event: Event) -> tuple[dict[str, str], str]:
    """Headers and body of an event in binary mode."""
    attributes = {
        name: value
        for name, value in event.items()
        if name not in ("data", "datacontenttype") and value is not None
    }
    headers = {f"ce-{name}": quote(_text_of(value), safe=_PLAIN) for name, value in attributes.items()}
    return {**headers, "content-type": "application/json"}, json.dumps(
        event.get("data"), separators=(",", ":")
    )


def _text_of(value: Any) -> str:
    """The canonical text of an attribute: booleans in lower case, as CloudEvents 1.0 (Type System) has them."""
    return str(value).lower() if isinstance(value, bool) else str(value)
