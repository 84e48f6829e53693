"""The folder that holds a data set's files: on this machine, or behind a URI and copied here."""

from distill.data.roots.base import Root
from distill.data.roots.listed_file import ListedFile
from distill.data.roots.local import LocalRoot
from distill.data.roots.remote import RemoteRoot

__all__ = ["ListedFile", "LocalRoot", "RemoteRoot", "Root"]
