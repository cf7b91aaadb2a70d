"""Where the functions are and what opens them: one Airflow connection for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from airflow.sdk.exceptions import AirflowFailException

CONNECTION_ID = "dandelion"


class ConnectionLike(Protocol):
    """What is read of an Airflow connection, whichever process asks for it."""

    password: str | None

    @property
    def extra_dejson(self) -> dict: ...


@dataclass(frozen=True)
class Functions:
    """The functions as callers reach them; the token never shows in a log."""

    url_template: str
    token: str | None = field(repr=False)

    def url_of(self, function: str) -> str:
        """Address of a function, without a slash at its end."""
        return self.url_template.replace("{name}", function).rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def functions_in(connection: ConnectionLike) -> Functions:
    """Reads the connection.

    A template and not a host, because a function is a path behind the local gateway but a host in a cluster.
    """
    template = connection.extra_dejson.get("url_template")
    if (
        not isinstance(template, str)
        or "{name}" not in template
        or not template.startswith(("http://", "https://"))
    ):
        raise AirflowFailException(
            f"The connection {CONNECTION_ID} needs url_template in its extra, an http(s) address with {{name}} in it, "
            f"such as http://127.0.0.1:8080/function/{{name}}; it is {template!r}."
        )
    return Functions(template, connection.password or None)
