"""The contract of attribeam: what the tables, files and SQL views of a run look like.

Nothing in here computes; every other package may import it, and it imports none of ours.
"""

from attribeam.schemas.errors import UsageError, UsageTypeError
from attribeam.schemas.layout import Unit, failures_path, parse_unit_path, unit_path
from attribeam.schemas.tables import CONTENT_FIELDS, TABLES, Failure, table_schema
from attribeam.schemas.views import VIEWS, View

__all__ = [
    "CONTENT_FIELDS",
    "TABLES",
    "VIEWS",
    "Failure",
    "Unit",
    "UsageError",
    "UsageTypeError",
    "View",
    "failures_path",
    "parse_unit_path",
    "table_schema",
    "unit_path",
]
