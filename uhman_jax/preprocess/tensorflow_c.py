"""A SavedModel run through TensorFlow's C API, without importing TensorFlow's Python.

The import takes three seconds, of which the library itself is a tenth. Documented in TensorFlow's
`c_api.h`; the symbols are in the library that its wheels carry.
"""

import ctypes
import importlib.util
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")
CONFIG_FILE = "session.pb"  # beside the SavedModel: its ConfigProto
INPUT, OUTPUT = "serving_default_images", "StatefulPartitionedCall"
_FLOAT, _UINT8 = 1, 4  # TF_DataType


class TensorFlowError(Exception):
    """What TensorFlow says is wrong."""


class _Place(ctypes.Structure):
    """TF_Output, and TF_Input: which tensor of which operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


# What each function returns and takes.
_SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "TF_NewStatus": (c_void_p, []),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_SessionRun": (
        None,
        [c_void_p, c_void_p]
        + [POINTER(_Place), POINTER(c_void_p), c_int] * 2
        + [c_void_p, c_int, c_void_p, c_void_p],
    ),
}


class SavedModel:
    """A SavedModel of one function, uint8 images to float32 features.

    Args:
        folder: of the SavedModel, with `session.pb` in it.

    Raises:
        TensorFlowError: the folder is damaged.
        OSError: a file is missing, or the library is.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Loads the library, the graph and the variables."""
        config = Path(folder, CONFIG_FILE).read_bytes()
        Path(folder, "variables", "variables.index").stat()  # TensorFlow would load none
        self._tf = tf = _library()
        self._status, options, graph = (
            tf.TF_NewStatus(),
            tf.TF_NewSessionOptions(),
            tf.TF_NewGraph(),
        )
        tf.TF_SetConfig(options, config, len(config), self._status)
        self._check()
        tags = (c_char_p * 1)(b"serve")
        self._session = tf.TF_LoadSessionFromSavedModel(
            options, None, os.fsencode(folder), tags, 1, graph, None, self._status
        )
        self._check()
        self._input = _Place(tf.TF_GraphOperationByName(graph, INPUT.encode()), 0)
        self._output = _Place(tf.TF_GraphOperationByName(graph, OUTPUT.encode()), 0)
        if not (self._input.operation and self._output.operation):
            raise TensorFlowError(f"{folder} has no {INPUT} or no {OUTPUT}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """What the function gives, flat.

        Args:
            images: uint8, of the shape that the function was traced with: TensorFlow does not check
                it.

        Raises:
            TensorFlowError: it could not run, for want of memory for example.
        """
        tf, images = self._tf, np.ascontiguousarray(images, np.uint8)
        shape = (c_int64 * images.ndim)(*images.shape)
        given = c_void_p(tf.TF_AllocateTensor(_UINT8, shape, images.ndim, images.nbytes))
        result = c_void_p()
        try:
            ctypes.memmove(tf.TF_TensorData(given), images.ctypes.data, images.nbytes)
            tf.TF_SessionRun(
                self._session, None,
                byref(self._input), byref(given), 1,
                byref(self._output), byref(result), 1,
                None, 0, None, self._status,
            )  # fmt: skip
            self._check()
            if tf.TF_TensorType(result) != _FLOAT:
                raise TensorFlowError(f"{OUTPUT} is not float32")
            size = tf.TF_TensorByteSize(result)
            return np.frombuffer(ctypes.string_at(tf.TF_TensorData(result), size), np.float32)
        finally:
            tf.TF_DeleteTensor(given)
            if result:
                tf.TF_DeleteTensor(result)

    def _check(self) -> None:
        if self._tf.TF_GetCode(self._status):
            raise TensorFlowError(self._tf.TF_Message(self._status).decode(errors="replace"))


def library_path() -> Path | None:
    """Where the installed TensorFlow has its library; None where it has none."""
    found = importlib.util.find_spec("tensorflow")
    folders = (found.submodule_search_locations if found else None) or ()
    candidates = (Path(folder, name) for folder in folders for name in LIBRARIES)
    return next((path for path in candidates if path.exists()), None)


def _library() -> ctypes.CDLL:
    """Loads it, with what each function takes and returns.

    Raises:
        OSError: there is none, or one without these functions.
    """
    if not (path := library_path()):
        raise OSError("TensorFlow has no library of its C API here")
    library = ctypes.CDLL(os.fspath(path))
    try:
        for name, (returned, taken) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = returned, taken
    except AttributeError as error:
        raise OSError(str(error)) from None
    return library
