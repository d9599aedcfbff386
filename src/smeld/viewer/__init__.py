"""The viewer: a local page that shows a result, annotates it, and can be sent to others.

``_source`` opens results, ``_stored`` reads their elements; ``_answers`` says what each address gives (``_columns``,
``_tables``, ``_tiles``, ``_links``, ``_index``; packed by ``_wire``). ``_server`` serves them behind ``_guard`` and
``_patience``; ``_export`` writes them as files; ``_notebook`` puts them into a notebook. ``_annotations`` keeps what
the user draws (``_shapes``) and writes it into the result (``_fold``).
"""

from smeld.viewer._notebook import view

__all__ = ["view"]
