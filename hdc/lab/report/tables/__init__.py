"""Tables built from the records. No JAX."""

from hdc.lab.report.tables.study import (
    Difference,
    Table,
    TableConfig,
    build,
    correlation,
    document,
    long_frame,
)

__all__ = ["Difference", "Table", "TableConfig", "build", "correlation", "document", "long_frame"]
