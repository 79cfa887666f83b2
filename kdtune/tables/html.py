"""HTML by Jinja2, which escapes everything that a template shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdtune.tables.model import Table

#: Rows that a page shows at once. The others unfold, unless they are no more than FEW.
SHOWN, FEW = 20, 3


@cache
def environment(package: str, **filters: Callable[..., str]) -> Environment:
    """Return the environment of the templates in a package's folder `templates`.

    Its filters are `filters` and `table`, which shows a Table.
    """
    found = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {**filters, "table": table_html}
    return found


def table_html(table: Table) -> Markup:
    """Return a figure with the table; its long tail is folded away unless it lists trials, which links must reach."""
    shown = len(table.rows) if table.lists_trials or len(table.rows) <= SHOWN + FEW else SHOWN
    return Markup(environment("kdtune.tables").get_template("table.html").render(table=table, shown=shown))
