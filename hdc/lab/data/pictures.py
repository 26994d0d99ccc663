"""Image files to arrays and back, by Pillow: what it would change silently is refused."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hdc.errors import InputError
from hdc.lab.store import line

_WORD = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # Pillow's modes of one channel with more than 8 bits
_PLAIN = {"L", "LA", "RGB", "RGBA"}
_AS_COLOUR = {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa"}
_BITS_PER_SAMPLE = 258  # the tag of a TIFF


class Unreadable(InputError):
    """A file that cannot be read at all, whatever the other files are."""


@contextmanager
def careful() -> Iterator[None]:
    """In the block, a file that claims to be too large is refused, and Pillow's other warnings are not shown.

    The filter of warnings is the whole process's: the block must be outside of threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def image(content: bytes, path: Path) -> np.ndarray:
    """An image `[height, width, channels]`, uint8, uint16 or float32; the pages of a TIFF are channels.

    Raises:
        InputError: naming `path`, for a file that is damaged or would lose precision.
    """
    pages = _pages(content, path)
    if len(pages) == 1:
        found = pages[0] if pages[0].ndim == 3 else pages[0][..., None]
    else:
        if any(page.ndim != 2 or page.shape != pages[0].shape for page in pages):
            raise InputError(f"{path} has pages of several channels or sizes: each must be one channel")
        found = np.stack(pages, axis=-1)
    return found.astype(np.uint8) * np.uint8(255) if found.dtype == bool else found


def mask(content: bytes, path: Path) -> np.ndarray:
    """A label map `[height, width]`, the values of a grey image or the indices of a palette, int32.

    Raises:
        InputError: naming `path`, for a file that is damaged or has colours or fractions in place of labels.
    """
    pages = _pages(content, path, indices=True)
    if len(pages) > 1 or pages[0].ndim != 2 or pages[0].dtype == np.float32:
        what = "fractions" if pages[0].dtype == np.float32 else "colours or several pages"
        raise InputError(
            f"{path} has {what}: a mask must be a grey image whose values are labels, or a palette image"
        )
    return pages[0].astype(np.int32)


def sides(path: Path) -> tuple[int, int]:
    """Height and width of an image, which is not decoded.

    Raises:
        InputError: naming `path`, if it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            return opened.height, opened.width
    except Exception as error:  # as in `_pages`
        raise InputError(f"{path} cannot be read as an image: {line(error)}") from None


def fitted(array: np.ndarray, size: Sequence[int], how: str = "resize", beyond: int = 0) -> np.ndarray:
    """An image in another size, or a mask.

    Args:
        array: an image `[height, width, channels]` or a mask `[height, width]`.
        size: height and width, or one number for both; none leaves the array as it is.
        how: "resize", which may distort; "crop", which resizes until one side fits and cuts the middle of the
            other; "pad", which leaves the pixels as they are and goes on beyond the lower and right edge with
            the image's mirror image, the mask with `beyond`. Images are resized by bilinear interpolation,
            averaged where they shrink, masks by the nearest pixel.
        beyond: see `how`.

    Raises:
        InputError: for an image that is larger than the size it is to be padded to.
    """
    if not size or array.shape[:2] == (size[0], size[-1]):
        return array
    height, width = size[0], size[-1]
    if how == "pad":
        room = (height - array.shape[0], width - array.shape[1])
        if min(room) < 0:
            raise InputError(
                f"it is {array.shape[0]} x {array.shape[1]} pixels, larger than data.size={[height, width]}, "
                "which data.fit=pad fills up: give the size of the largest image"
            )
        edges = [(0, room[0]), (0, room[1]), (0, 0)][: array.ndim]
        if array.ndim == 3:
            return np.pad(array, edges, "symmetric")
        return np.pad(array, edges, constant_values=beyond)
    box = None
    if how == "crop":
        factor = max(height / array.shape[0], width / array.shape[1])
        rows, columns = height / factor, width / factor
        top, left = (array.shape[0] - rows) / 2, (array.shape[1] - columns) / 2
        box = (left, top, left + columns, top + rows)
    if array.ndim == 2:
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.NEAREST, box))
    kept = array if array.dtype == np.uint8 else array.astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(kept[..., one]).resize((width, height), Image.Resampling.BILINEAR, box))
        for one in range(array.shape[-1])
    ]
    found = np.stack(planes, axis=-1)
    return np.rint(found).astype(array.dtype) if array.dtype == np.uint16 else found


def _pages(content: bytes, path: Path, *, indices: bool = False) -> list[np.ndarray]:
    """The pages, `[height, width]` or `[height, width, channels]`; of a palette its colours, or `indices`."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF", "WEBP")) as opened:
            _refuse_shortened(opened, content)
            count = getattr(opened, "n_frames", 1)
            if count > 1 and opened.format != "TIFF":
                raise InputError(f"it has {count} frames: only a TIFF may have pages, one for each channel")
            found = []
            for number in range(count):
                opened.seek(number)
                found.append(_array(opened, indices))
            return found
    except Image.UnidentifiedImageError:
        raise Unreadable(f"{path} {_unknown(content)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(f"{path} claims more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Exception as error:  # Pillow, zlib and struct each raise their own for a file that is damaged
        raise Unreadable(f"{path} cannot be read as an image: {line(error)}") from None


def _array(opened: Image.Image, indices: bool) -> np.ndarray:
    mode = opened.mode
    if mode in _WORD:
        values = np.asarray(opened)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise InputError(f"its values are from {values.min()} to {values.max()}, not from 0 to 65535")
        return values.astype(np.uint16)
    if mode == "F":
        return np.array(opened, np.float32)
    if mode == "P" and indices:
        return np.array(opened)
    if mode in _AS_COLOUR:
        return np.array(opened.convert("RGB"))
    if mode in _PLAIN or mode == "1":
        return np.array(opened)
    raise InputError(f"its mode is {mode}, which is not read here")


def _refuse_shortened(opened: Image.Image, content: bytes) -> None:
    """Pillow reads colours of 16 bits as 8 bits without a word."""
    deep = opened.format == "PNG" and content[24:25] == b"\x10"
    if opened.format == "TIFF":
        deep = max(np.atleast_1d(opened.tag_v2.get(_BITS_PER_SAMPLE, 8))) > 8  # type: ignore[attr-defined]
    if deep and opened.mode in (_PLAIN | _AS_COLOUR):
        raise InputError(
            "it has colours of more than 8 bits, which Pillow would shorten: write a TIFF with one grey page "
            "for each channel, or data=npz (tifffile or imageio reads it)"
        )


def _unknown(content: bytes) -> str:
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return (
            "is a TIFF that Pillow cannot read: it is damaged, or has many bands in one page, which tifffile "
            "or rasterio would read; with that, write a grey page for each band, or a file for data=npz"
        )
    return "is not a PNG, JPEG, TIFF or WebP image, or is damaged" if content else "is empty"
