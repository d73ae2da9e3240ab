"""The nerfstudio plugin: the only part of the package that imports nerfstudio.

nerfstudio stores the import paths of these classes in `config.yml`. They must not be moved or renamed.
"""

import warnings

with warnings.catch_warnings():  # what nerfstudio says of torch while it is imported, which a user cannot act on
    warnings.simplefilter("ignore")
    import nerfstudio.models.nerfacto  # noqa: F401
