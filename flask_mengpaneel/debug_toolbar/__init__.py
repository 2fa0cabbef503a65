"""A panel for Flask-DebugToolbar: what became of the calls of a request.

::

    app.config["DEBUG_TB_PANELS"] = [
        *app.config["DEBUG_TB_PANELS"],
        "flask_mengpaneel.debug_toolbar.MengpaneelPanel",
    ]
"""

from .panel import MengpaneelPanel as MengpaneelPanel

__all__ = ["MengpaneelPanel"]
