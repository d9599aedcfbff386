"""Reading and safe writing: one platform a file, all of them behind ``read``."""

from smeld.io._platforms import ReadOptions, platforms
from smeld.io._read import read
from smeld.io._write import refuse_foreign, replacing, replacing_folder, write

__all__ = ["ReadOptions", "platforms", "read", "refuse_foreign", "replacing", "replacing_folder", "write"]
