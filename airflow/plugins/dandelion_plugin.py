"""Makes Airflow know the links; the package itself is importable because plugins/ is on the path."""

from airflow.plugins_manager import AirflowPlugin

from dandelion.links import ModelLink, RunLink


class DandelionPlugin(AirflowPlugin):
    """What the web server and the workers share."""

    name = "dandelion"
    operator_extra_links = [RunLink(), ModelLink()]  # noqa: RUF012 - Airflow declares it so
