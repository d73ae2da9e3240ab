"""The nerfstudio plugin: the only part of the package that imports nerfstudio.

nerfstudio writes the paths of these classes into `config.yml`: they are a file format and stay where they are.
"""
