"""CSV as RFC 4180 says, in which no text is a formula: an apostrophe precedes such a text.

This module needs neither pandas nor MindSpore.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMULA = r"^(?=[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])"
"""What a spreadsheet takes for the beginning of a formula; some also the signs of full width."""


def as_csv(table: "pd.DataFrame") -> str:
    """Return a table as CSV. Numbers stay as they are.

    Its columns have names that no user chose. Lines end with CR LF, so that a text with a line
    break of either kind is quoted.
    """
    texts: list[str] = list(table.select_dtypes("string"))
    harmless = {name: table[name].str.replace(FORMULA, "'", regex=True) for name in texts}
    return str(table.assign(**harmless).to_csv(index=False, lineterminator="\r\n"))


def rows_as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, the first of which may name the columns. Numbers stay as they are."""
    text = io.StringIO()
    csv.writer(text).writerows(
        [re.sub(FORMULA, "'", cell) if isinstance(cell, str) else cell for cell in row]
        for row in rows
    )
    return text.getvalue()
