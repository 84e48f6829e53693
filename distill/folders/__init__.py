"""Where durable things lie: a local directory, or any file system of pyarrow."""

from distill.folders.base import Folder
from distill.folders.local import LocalFolder
from distill.folders.remote import RemoteFolder

__all__ = ["Folder", "LocalFolder", "RemoteFolder"]
