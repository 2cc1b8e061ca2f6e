"""Files of every mode, depth and orientation against an independent reading, and odd ones."""

import os
import zlib

import numpy as np
import pytest
from PIL import Image

from optax_dtnh.finetune.images import check, decode, is_image, reason
from tests.finetune.pictures import bomb, chunk, encoded, exif, jpeg, photo, png, tiff

GRAY, RGB, GRAY_ALPHA, RGBA = 0, 2, 4, 6  # color types of PNG
SHAPE = (6, 8)
TURNED = {  # what each orientation of EXIF does to rows and columns
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1], 8: lambda x: x.swapaxes(0, 1)[::-1],
}  # fmt: skip


def ramp(low, high, dtype, shape=SHAPE):
    """Random values whose largest is `high`."""
    values = np.random.default_rng(0).uniform(low, high, shape).astype(dtype)
    values.flat[-1] = high
    return values


def colored(pixels):
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def assert_read(content, pixels, tolerance):
    np.testing.assert_allclose(np.asarray(decode(content), float), pixels, rtol=0, atol=tolerance)
    check(content)


def turned_png(values, color_type, orientation, bits=None):
    return png(values, color_type, chunk(b"eXIf", exif(orientation)), bits=bits)


U8, U12, U16 = (ramp(0, 2**n - 1, f"u{1 if n == 8 else 2}") for n in (8, 12, 16))
U32, I32 = ramp(0, 2**32 - 1, "u4"), ramp(0, 2**31 - 1, "i4")
F1, F255 = ramp(0, 1, "f4"), ramp(0, 255, "f4")
C8, A8 = (ramp(0, 255, "u1", (*SHAPE, planes)) for planes in (3, 4))
G16, C16, A16 = (ramp(0, 65535, "u2", (*SHAPE, planes)) for planes in (2, 3, 4))
CMYK = (255.0 - A8[..., :3]) * (255.0 - A8[..., 3:]) / 255
BLOCKS = np.kron(ramp(0, 255, "u1", (2, 3)), np.ones((16, 16), "u1"))
DEPTHS = {
    # How a file is written for an orientation, and the pixels that it holds.
    "png 1": (lambda o: turned_png(U8 >> 7, GRAY, o, 1), (U8 >> 7) * 255),
    "png 8": (lambda o: turned_png(U8, GRAY, o), U8),
    "png 12 in 16": (lambda o: turned_png(U12, GRAY, o), U12 >> 4),
    "png 16": (lambda o: turned_png(U16, GRAY, o), U16 >> 8),
    "png rgb": (lambda o: turned_png(C8, RGB, o), C8),
    "png rgb 16": (lambda o: turned_png(C16, RGB, o), C16 >> 8),
    "png rgba 16": (lambda o: turned_png(A16, RGBA, o), A16[..., :3] >> 8),
    "png gray alpha 16": (lambda o: turned_png(G16, GRAY_ALPHA, o), G16[..., 0] >> 8),
    "tiff 8 of white 0": (lambda o: tiff(U8, 0, o), 255 - U8),
    "tiff 12": (lambda o: tiff(U12, orientation=o, bits=12), U12 >> 4),
    "tiff 16": (lambda o: tiff(U16, orientation=o), U16 >> 8),
    "tiff 16 signed": (lambda o: tiff((U16 >> 1).astype("i2"), orientation=o), U16 >> 9),
    "tiff 32": (lambda o: tiff(U32, orientation=o), U32 >> 24),
    "tiff 32 signed": (lambda o: tiff(I32, orientation=o), I32 >> 24),
    "tiff float to 1": (lambda o: tiff(F1, orientation=o), np.rint(F1 * 255)),
    "tiff float to 255": (lambda o: tiff(F255, orientation=o, order=">"), np.floor(F255)),
    "tiff rgb 16": (lambda o: tiff(C16, orientation=o, order=">"), C16 >> 8),
    "tiff cmyk": (lambda o: tiff(A8, 5, o), CMYK),
    "jpeg": (lambda o: jpeg(BLOCKS, (0xE1, b"Exif\0\0" + exif(o))), BLOCKS),
    "webp": (lambda o: encoded(Image.fromarray(C8), "WEBP", lossless=True, exif=exif(o)), C8),
    "avif": (lambda o: encoded(Image.fromarray(BLOCKS), "AVIF", quality=100, exif=exif(o)), BLOCKS),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", DEPTHS)
def test_every_depth_and_orientation_is_read_as_numpy_reads_it(name, orientation):
    write, pixels = DEPTHS[name]
    lossy = 2 if name in ("jpeg", "avif", "tiff cmyk") else 0
    assert_read(write(orientation), TURNED[orientation](colored(pixels)), lossy)


FROM_YCBCR = np.array([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]])
YCBCR = (C8 - np.array([0.0, 128, 128])) @ FROM_YCBCR
MODES = {
    # A file of this mode, its pixels, and the largest difference that rounding makes.
    "P": (encoded(Image.fromarray(U8 // 64 * 64).convert("P"), "GIF"), U8 // 64 * 64, 0),
    "P of two alphas": (encoded(Image.fromarray(U8).convert("P"), transparency=b"\0\x80"), U8, 0),
    "PA": (encoded(Image.fromarray(U8).convert("P").convert("PA"), "TIFF"), U8, 0),
    "LA": (tiff(A8[..., :2], 1, extra=[(338, 3, 1, 2)]), A8[..., 0], 0),
    "La": (tiff(np.stack([U8, np.full_like(U8, 255)], -1), 1, extra=[(338, 3, 1, 1)]), U8, 0),
    "RGBX": (tiff(A8, extra=[(338, 3, 1, 0)]), A8[..., :3], 0),
    "YCbCr": (tiff(C8, 6), np.clip(YCBCR, 0, 255), 1),
    "LAB": (tiff(np.full((*SHAPE, 3), (128, 0, 0), "u1"), 8), np.full(SHAPE, 119), 2),
    "F": (encoded(Image.fromarray(F1), "PPM"), np.rint(F1 * 255), 0),
    "I": (encoded(Image.fromarray(U16.astype("i4")), "PPM"), U16 >> 8, 0),
    "J2K 16": (encoded(Image.fromarray(U16), "JPEG2000"), U16 >> 8, 0),
    "PGM 12": (b"P5 8 6 4095\n" + U12.astype(">u2").tobytes(), U12 >> 4, 1),
    "ICO": (encoded(Image.fromarray(C8), "ICO", sizes=[SHAPE[::-1]]), C8, 0),
    **{name: (encoded(Image.fromarray(C8), name), C8, 0) for name in ("BMP", "TGA", "QOI")},
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_is_read_as_its_definition_says(name):
    content, pixels, rounding = MODES[name]
    assert_read(content, colored(pixels), rounding)


BOMB = zlib.compress(bytes(2_000_000))
PHOTO = photo((40, 30))
PIXELS = np.asarray(PHOTO)
FAR = 2**31
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]}
TEXTS = {
    "eXIf": b"II*\0\xff\xff\xff\x7f", "zTXt": b"Comment\0\0" + BOMB,
    "iTXt": b"Comment\0\1\0\0\0" + BOMB, "zTXt ": b"Comment\0\7nonsense", "iCCP": b"icc\0\5x",
    "pHYs": b"abc", "sRGB": b"", "acTL": b"a", "tEXt": b"Raw profile type exif\0\nexif\n  8\nzzzz",
}  # fmt: skip
SEGMENTS = {
    "exif": (0xE1, b"Exif\0\0garbage"), "icc": (0xE2, b"ICC_PROFILE\0\1\2x"),
    "mpf": (0xE2, b"MPF\0garbage"), "adobe": (0xEE, b"Adobe"), "jfif": (0xE0, b"JFIF"),
    "comment": (0xFE, bytes(65_000)), "photoshop": (0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0"),
}  # fmt: skip
ENTRIES = {
    "exif": (34665, 4, 1, FAR), "text": (270, 2, FAR - 1, 50), "orientation": (274, 3, 1, 99),
}  # fmt: skip
ODD = {
    **{f"png {n}": png(PIXELS, RGB, chunk(n.strip().encode(), c)) for n, c in TEXTS.items()},
    "png checksum": png(PIXELS, RGB, chunk(b"tEXt", b"a\0b", damage=1)),
    "png text at the end": png(PIXELS, RGB, after=chunk(b"zTXt", b"Comment\0\0" + BOMB)),
    "png without an end": png(PIXELS, RGB)[:-12],
    **{f"tiff {name}": tiff(PIXELS, extra=[entry]) for name, entry in ENTRIES.items()},
    **{f"jpeg {name}": jpeg(PHOTO, segment) for name, segment in SEGMENTS.items()},
    "tiff of two pages": encoded(PHOTO, "TIFF", **FRAMES),
    "apng": encoded(PHOTO, "PNG", **FRAMES),
    "webp of two": encoded(PHOTO, "WEBP", lossless=True, **FRAMES),
    "webp exif": encoded(PHOTO, "WEBP", lossless=True, exif=b"Exif\0\0garbage"),
    "webp icc": encoded(PHOTO, "WEBP", lossless=True, icc_profile=b"garbage"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_damaged_metadata_and_further_images_do_not_lose_an_image(name):
    expected = decode(jpeg(PHOTO)) if name.startswith("jpeg") else PIXELS
    np.testing.assert_array_equal(decode(ODD[name]), expected)
    check(ODD[name])


def test_an_image_with_a_huge_text_is_still_turned():
    chunks = chunk(b"eXIf", exif(6)), chunk(b"zTXt", b"Comment\0\0" + BOMB)
    np.testing.assert_array_equal(decode(png(PIXELS, RGB, *chunks)), TURNED[6](PIXELS))


REFUSED = {
    "nothing": (b"", "cannot identify"),
    "a page": (b"<!DOCTYPE html>", "cannot identify"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot identify"),
    "eps": (encoded(PHOTO, "EPS"), "cannot identify"),
    "bomb": (bomb(), "decompression bomb"),
    "half a png": (png(PIXELS, RGB)[:1500], "truncated"),
    "half a tiff": (tiff(PIXELS)[:1500], "cannot identify"),
    "damaged pixels": (png(PIXELS, RGB).replace(b"IDAT", b"IDAT\0\0", 1), "."),
    "nan": (tiff(np.where(F1 > 0.5, np.float32(np.nan), F1)), "finite numbers from 0, got nan"),
    "below 0": (tiff(F1 - 0.5), "finite numbers from 0, got -0"),
    "signed below 0": (tiff(I32 - I32.max()), "finite numbers from 0, got -"),
    "beyond 32 bits": (tiff(F1 * 2**33), "finite numbers from 0, got"),
    "float to 1.5": (tiff(F1 * np.float32(1.5)), "should reach 1 or 255, got 1.5"),
    "12 in 16 bits": (png(C16 >> 4, RGB), "12-bit numbers in 16 bits"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*:RuntimeWarning")
@pytest.mark.parametrize("read", [decode, check])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_reason(name, read):
    content, match = REFUSED[name]
    with pytest.raises(Exception, match=match) as raised:
        read(content)
    told = reason(raised.value, f"a folder/Screenshot\u202f\\1 {name}.png")
    assert "\n" not in told
    assert "BytesIO" not in told
    assert "attack" not in told


def test_the_check_finds_what_decoding_would():
    whole = encoded(photo(), "JPEG")
    check(whole)
    for length in range(0, len(whole) - 2, len(whole) // 40):
        for read in (decode, check):
            with pytest.raises((OSError, SyntaxError)):
                read(whole[:length])


def test_an_image_is_known_by_its_suffix_or_content(tmp_path):
    contents = {
        "no_suffix": encoded(PHOTO, "JPEG"), "a.txt": encoded(PHOTO, "AVIF"), "bomb.png": bomb(),
        "truncated": encoded(PHOTO, "JPEG")[:900], "photo.TGA": encoded(PHOTO, "TGA"),
        "empty.jpg": b"",
    }  # fmt: skip
    others = {
        "empty": b"", "page.htm": b"<!DOCTYPE html>", "a.h": b"#define A_H x\n",
        "video.mpg": b"\0\0\1\xb3" + bytes(99), "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }  # fmt: skip
    for name, content in (contents | others).items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "nowhere.jpg").symlink_to("nothing")  # a broken image
    found = {path.name for path in tmp_path.iterdir() if is_image(path)}
    assert found == contents.keys() | {"nowhere.jpg"}
