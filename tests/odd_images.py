"""Image files of every kind that decodes, and the pieces to make those that do not."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms


def photo(height=61, width=47, seed=0):
    """Smooth colour with some noise: every JPEG path has something to decode."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, depth, colour, rows):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def frames(kind):
    return encode(photo(), kind, save_all=True, append_images=[photo(seed=1), photo(seed=2)])


def ordinary():
    """Name -> file of everything that decodes to what Pillow says."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette = photo().quantize(16)
    table = {
        "gray.jpg": encode(photo().convert("L"), "JPEG"),
        "icc.jpg": encode(photo(), "JPEG", icc_profile=icc),
        "comment.jpg": encode(photo(), "JPEG", comment=b"hello"),
        "restart.jpg": encode(photo(), "JPEG", restart_marker_blocks=1),
        "garbage_behind.jpg": encode(photo(), "JPEG") + b"\xff\xda garbage",
        "rgb_not_ycc.jpg": encode(photo(), "JPEG", keep_rgb=True),
        "1x1.jpg": encode(photo(1, 1), "JPEG"),
        "widest.jpg": encode(photo(1, 65_500), "JPEG"),
        "cmyk.jpg": encode(photo().convert("CMYK"), "JPEG"),
        "several.mpo": frames("MPO"),
        "xmp_turned.jpg": encode(photo(), "JPEG", xmp=b'<x tiff:Orientation="6"/>'),
        "broken_exif.jpg": encode(photo(), "JPEG", exif=b"Exif\0\0nonsense"),
        "png_named.jpg": encode(photo(), "PNG"),
        "rgb16.png": png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 300, 65_535, 32_768, 511, 5)),
        "alpha.png": encode(photo().convert("RGBA"), "PNG"),
        "la.png": encode(photo().convert("LA"), "PNG"),
        "bilevel.png": encode(photo().convert("1"), "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_trns.png": encode(palette, "PNG", transparency=3),
        "palette_trns_bytes.png": encode(palette, "PNG", transparency=bytes(range(16))),
        "1x1.png": encode(photo(1, 1), "PNG"),
        "widest.png": encode(photo(1, 65_535), "PNG"),
        "animated.gif": frames("GIF"),
        "animated.webp": frames("WEBP"),
        "animated.png": frames("PNG"),
        "rgb.bmp": encode(photo(), "BMP"),
        "rgb.tif": encode(photo(), "TIFF"),
        "lzw.tif": encode(photo(), "TIFF", compression="tiff_lzw"),
        "rgb.avif": encode(photo(), "AVIF"),
    }
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            data = encode(photo(), "JPEG", subsampling=sampling, progressive=progressive, quality=85)
            table[f"{sampling}{'p' * progressive}.jpg"] = data
    for turn in range(1, 9):
        table[f"turn{turn}.jpg"] = encode(photo(), "JPEG", exif=exif(turn))
        table[f"turn{turn}.png"] = encode(photo(), "PNG", exif=exif(turn))
        table[f"turn{turn}.tif"] = encode(photo(), "TIFF", tiffinfo={0x0112: turn})
    return table
