"""What commands take that work on an application: `MODULE:APP`."""

from __future__ import annotations

from typing import Annotated

import typer

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The application, such as shop.service:app.")]
