"""Networks: torch lives here and only here, behind the extra ``smeld[deep]``.

Importing this package imports no torch; its modules do. ``require`` says what to install where it is absent.
"""

from smeld.nn._extra import available, require

__all__ = ["available", "require"]
