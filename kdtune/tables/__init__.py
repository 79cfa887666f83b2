"""Tables as data, and one renderer for every form in which they leave: terminal, text, Markdown, CSV, LaTeX, HTML.

table = Table.of(["trial", number("gain")], [["control", ""], ["3", Cell("+4.2", 0.042)]], title="Gains")
print(render(table, "text"))
"""

from kdtune.tables.model import Cell, Column, Table, number
from kdtune.tables.render import FORMS, render

__all__ = ["FORMS", "Cell", "Column", "Table", "number", "render"]
