"""The compiled part of this package: `tiles/read/_area.c`, `tiles/read/_jpeg.c` and `tiles/augment/_views.c`.

They need no header and no library and are compiled when the package is installed, by whatever C compiler is there.
Without one, that step is left out; everything works all the same, with the same pixels at full size, and slower:
`midnight.tiles.read.jpeg` then decodes whole tiles with imagecodecs; averages and the views are made with numba.
`midnight doctor` says which it is. `MIDNIGHT_NATIVE=FILE` takes another build, `MIDNIGHT_NATIVE=` (empty) none.
"""

import ctypes
import importlib.machinery
import os
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where the package was installed without a C compiler.

    Raises:
        OSError: the file that MIDNIGHT_NATIVE names can't be loaded.
    """
    chosen = os.environ.get("MIDNIGHT_NATIVE")
    if chosen is not None:
        return _declared(ctypes.CDLL(chosen)) if chosen else None
    folder = Path(__file__).parent
    built = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    found = next((path for path in built if path.exists()), None)
    return _declared(ctypes.CDLL(str(found))) if found else None


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int
    numbers = ctypes.POINTER(number)
    found.midnight_area_room.argtypes = (size, size)
    found.midnight_area_room.restype = size
    found.midnight_area.argtypes = (pointer, size, size, pointer, pointer, size, size, size, pointer, pointer)
    found.midnight_area.restype = None
    found.midnight_jpeg_new.restype = pointer
    found.midnight_jpeg_free.argtypes = (pointer,)
    found.midnight_jpeg_free.restype = None
    found.midnight_jpeg_window.argtypes = (pointer, pointer, size, pointer, numbers, text, size, number, pointer)
    found.midnight_views_room.argtypes = (pointer,)
    found.midnight_views_room.restype = size
    found.midnight_views.argtypes = (pointer, number)
    found.midnight_views.restype = None
    return found
