"""The nerfstudio plugin: the only part of the package that imports nerfstudio.

nerfstudio stores the import paths of these classes in `config.yml`. They must not be moved or renamed.
"""
