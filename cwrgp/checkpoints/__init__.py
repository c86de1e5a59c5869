"""Checkpoints of any known format: safe reading, extraction, names, the model zoo.

Importing it lets every reader of this package take ``cwrgp://NAME`` for a published checkpoint.
"""

from cwrgp.checkpoints.model_zoo import ZooHandler
from cwrgp.file_io.path_manager import PATH_MANAGER

PATH_MANAGER.register_handler(ZooHandler())
