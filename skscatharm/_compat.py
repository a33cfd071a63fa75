"""Private parts of scikit-learn, imported here alone.

Seen in, and tested with, scikit-learn 1.6, 1.7, 1.8 and 1.9:

- ``sklearn.base._fit_context``
- ``sklearn.utils._param_validation.HasMethods``, ``Interval``, ``Options`` and
  ``StrOptions``
"""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

__all__ = ["HasMethods", "Interval", "Options", "StrOptions", "_fit_context"]
