"""Image files and bytes to RGB arrays.

simplejpeg decodes sound JPEG files; Pillow decodes all else and has the last word on a JPEG that simplejpeg
refuses, so what counts as readable does not depend on whether simplejpeg is installed. Where a camera's
rotation flag is set it is ignored: aligned crops stand upright, and silent turning would undo the alignment.
"""

import io
import os
import warnings
from collections.abc import Callable
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from unpg.data.image_set import SizeError
from unpg.errors import DataError

try:
    import simplejpeg
except ImportError:  # pure Python installs and some GPU images lack it
    simplejpeg = None

__all__ = ["MAX_PIXELS", "SUFFIXES", "decode", "decode_sized", "file_content", "first_size", "require_size"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
"""Endings of file names, lower case, that count as images in a folder."""

MAX_PIXELS = 64_000_000
"""Largest image decoded, in pixels. Larger ones are not faces but mistakes or decompression bombs."""

# No format that starts a program or reads further files (EPS, PDF, ...).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
_COLORS = ("YCbCr", "RGB", "Gray")  # of JPEG files that simplejpeg decodes
# A file cannot sensibly be larger than its own decoded pixels and some metadata.
_MAX_BYTES = 4 * MAX_PIXELS
# Modes that Pillow turns to RGB without inventing a range: 16- and 32-bit ones would be clipped at 255.
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})


def decode(
    source: str | PathLike[str] | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode one image.

    Grey becomes RGB with three equal channels; an alpha channel is dropped, not blended.

    Args:
        source: A path, or the file's content.
        name: What to call the image in errors; the path, or "<bytes>", if not given.
        max_pixels: Refuse larger images before they are decoded.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        DataError: Missing, empty, broken, too large, not an image, or of a kind without a defined 8-bit
            meaning. Names the image.
    """
    if isinstance(source, bytes):
        data, name = source, name or "<bytes>"
    else:
        name = name or str(source)
        data = file_content(source, name)
    if not data:
        raise DataError(f"{name} is empty (0 bytes). Restore or remove it.")
    if simplejpeg is not None and data.startswith(b"\xff\xd8\xff"):
        image = _decode_jpeg(data, name, max_pixels)
        if image is not None:
            return image
    return _decode_any(data, name, max_pixels)


def require_size(image: NDArray[np.uint8], size: tuple[int, int], name: str, like: str) -> NDArray[np.uint8]:
    """``image`` (h, w, 3) itself if (h, w) is ``size``, which is that of the image called ``like``.

    Raises:
        SizeError: It is another size. Says what to do.
    """
    height, width = image.shape[:2]
    if (height, width) != size:
        raise SizeError(
            f"{name} is {height} x {width} pixels (height x width), but {like} of the same set is "
            f"{size[0]} x {size[1]}. Images of one set must have one size: align the faces to one "
            "template first, or put images of other sizes in a set of their own."
        )
    return image


def first_size(
    n: int, load: Callable[[int], NDArray[np.uint8]], name: Callable[[int], str], source: object
) -> tuple[tuple[int, int], str]:
    """The (height, width) that a set has, and the name of the image that says so: its first readable one.

    Raises:
        DataError: None of the ``n`` images can be read.
    """
    first = ""
    for i in range(n):
        try:
            image = load(i)
        except DataError as error:
            first = first or str(error)
            continue
        return (image.shape[0], image.shape[1]), name(i)
    raise DataError(f"{source}: none of the {n} images can be read. The first: {first}")


def decode_sized(
    data: bytes, size: tuple[int, int], name: Callable[[], str], like: str, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """:func:`decode` and :func:`require_size` in one; for the many sound JPEG files of a set nothing else is done.

    Args:
        data: The content of an image file.
        size: (height, width) that the set has.
        name: Says what the image is called, if there is something to say.
        like: Name of the image that has given the size.
        out: (h, w, 3) where the image goes, without gaps; the result is then ``out``. After an error it holds anything.

    Raises:
        DataError: As :func:`decode`.
        SizeError: As :func:`require_size`.
    """
    if simplejpeg is not None and data.startswith(b"\xff\xd8\xff"):
        try:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            if (height, width) == size and colors in _COLORS:
                if out is not None:
                    simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
                    return out
                image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
                return image
        except (ValueError, RuntimeError):
            pass  # Pillow has the last word
    called = name()
    image = require_size(decode(data, name=called), size, called, like)
    if out is None:
        return image
    out[:] = image
    return out


def file_content(path: str | PathLike[str], name: str) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: It cannot be read, or is larger than any image is. Begins with ``name``.
    """
    try:
        # By the system's own calls, and by its size: a file object costs a tenth of what decoding does, and a buffer of
        # the largest size that is allowed more than all of it.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            size = os.fstat(file).st_size
            data = os.read(file, min(size, _MAX_BYTES) + 1)
            while len(data) != size and len(data) <= _MAX_BYTES and (more := os.read(file, 1 << 20)):
                data += more
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a path from a list with a zero byte or half a character in it
        raise DataError(f"{name!r} is no path: {error}.") from error
    if len(data) > _MAX_BYTES:
        raise DataError(f"{name} has more than {_MAX_BYTES:,} bytes; that is no face crop. Remove it.")
    return data


def _decode_jpeg(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8] | None:
    """The image, or None if Pillow shall judge."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        _require_pixels(height, width, name, max_pixels)
        if colors not in _COLORS:
            return None  # four inks: which of the two inversions holds stands in a marker that Pillow reads
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except DataError:
        raise
    except (ValueError, RuntimeError):
        return None
    return image


def _decode_any(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            # Our own bound says the same with the file's name; broken metadata is none of our business.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _require_pixels(image.height, image.width, name, max_pixels)
                if image.mode not in _MODES:
                    raise DataError(
                        f"{name} has pixels of mode {image.mode!r}; unpg takes 8 bits per channel. Convert it first."
                    )
                # A palette's transparency has no place in RGB; by way of RGBA Pillow drops it cleanly.
                opaque = image.convert("RGBA") if image.mode in ("P", "PA") else image
                return np.array(opaque.convert("RGB"), dtype=np.uint8)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(_FORMATS)
        raise DataError(f"{name} is not an image of a known kind ({kinds}); it starts with {data[:8]!r}.") from error
    except Image.DecompressionBombError as error:  # Pillow looks at the head before we can
        raise DataError(
            f"{name} would have too many pixels, more than the {max_pixels:,} allowed: {error} Shrink or remove it."
        ) from error
    # Pillow's decoders raise nearly anything on hostile bytes; all of it means that the file is broken.
    except Exception as error:
        raise DataError(f"{name} is broken: {error}. Restore or remove it.") from error


def _require_pixels(height: int, width: int, name: str, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise DataError(
            f"{name} would have {height} x {width} pixels, more than the {max_pixels:,} allowed. Shrink or remove it."
        )
