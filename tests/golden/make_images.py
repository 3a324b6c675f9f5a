"""Pictures of every kind that is read, and what PIL makes of them.

    python make_images.py        (Pillow 13, torchvision, NumPy; cjpeg of libjpeg-turbo for unusual subsampling)

writes images/ (small pictures), images/decoded.txt (FILE WIDTH HEIGHT SHA1 of the RGB bytes after exif_transpose and
convert("RGB")), images/resized.txt (FILE OPERATION A B WIDTH HEIGHT SHA1), and the seeds of the fuzz target `image`.
"""

import hashlib
import io
import pathlib
import shutil
import struct
import subprocess
import zlib

import numpy as np
import torchvision.transforms as transforms
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
OUT = HERE / "images"
CORPUS = HERE.parent / "fuzz" / "corpus" / "image"
random = np.random.default_rng(20)


def picture(width, height):
    """Smooth colours with some noise, so that rounding and subsampling both show."""
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    pixels = np.array(small.resize((width, height), Image.BICUBIC)).astype(int)
    pixels += random.integers(-12, 13, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def cjpeg(image, *arguments):
    stream = io.BytesIO()
    image.save(stream, "PPM")
    return subprocess.run(["cjpeg", *arguments], input=stream.getvalue(), capture_output=True, check=True).stdout


def exif(orientation, endian="<"):
    block = Image.Exif()
    block[0x010F] = "maker"
    block[0x0112] = orientation
    block.endian = endian
    return block.tobytes()


def xmp(orientation):
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def after_soi(stream, *segments):
    return stream[:2] + b"".join(segments) + stream[2:]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(width, height, depth, color, interlaced=False, before=b"", after=b"", idat_bytes=1 << 20):
    """Random samples under random filters: PIL writes few of PNG's kinds."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    lines = []
    for x, y, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
        if columns > 0:
            lines += [bytes([random.integers(0, 5)]) + random.bytes((columns * bits + 7) // 8) for _ in range(rows)]
    data = zlib.compress(b"".join(lines), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    idat = b"".join(chunk(b"IDAT", data[i : i + idat_bytes]) for i in range(0, len(data), idat_bytes))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + idat + after + chunk(b"IEND", b"")


def jpegs():
    image = picture(23, 17)
    yield "rgb_444.jpg", jpeg(image, quality=90, subsampling=0)
    yield "rgb_422.jpg", jpeg(image, quality=75, subsampling=1)
    yield "rgb_420.jpg", jpeg(image, quality=40, subsampling=2)
    for factors in ("4x1", "1x2", "2x2,2x1,1x2", "3x1", "1x1,2x2,1x1"):
        yield f"rgb_{factors.replace(',', '_')}.jpg", cjpeg(image, "-sample", factors)
    yield "rgb_progressive.jpg", jpeg(image, progressive=True)
    yield "rgb_arithmetic.jpg", cjpeg(image, "-arithmetic")
    yield "rgb_arithmetic_progressive.jpg", cjpeg(image, "-arithmetic", "-progressive")
    sequential = jpeg(image)
    yield "rgb_extended.jpg", sequential.replace(b"\xff\xc0", b"\xff\xc1", 1)
    yield "rgb_restart.jpg", jpeg(image, restart_marker_blocks=1)
    yield "rgb_not_ycbcr.jpg", jpeg(image, keep_rgb=True)
    yield "grey.jpg", jpeg(image.convert("L"))
    cmyk = Image.fromarray(random.integers(0, 256, (17, 23, 4), dtype=np.uint8), "CMYK")
    yield "cmyk.jpg", jpeg(cmyk, quality=95)
    yield "cmyk_progressive.jpg", jpeg(cmyk, quality=95, progressive=True)
    # Adobe's marker says which transform was used: 0 is plain CMYK, 2 is YCCK.
    plain = jpeg(cmyk, quality=95)
    at = plain.index(b"Adobe")
    yield "ycck.jpg", plain[: at + 11] + b"\2" + plain[at + 12 :]
    yield "cmyk_no_adobe.jpg", plain[: at - 4] + plain[at + 12 :]
    yield "padding.jpg", after_soi(jpeg(image), b"\xff" * 9)
    scan = jpeg(image)
    yield "extraneous.jpg", scan[:-2] + b"\x12\x34\x56" + scan[-2:]
    yield "trailing.jpg", scan + b"after the end" * 9
    small = picture(13, 7)
    for orientation in range(0, 10):
        yield f"exif_{orientation}.jpg", jpeg(small, exif=exif(orientation))
    yield "exif_big_endian.jpg", jpeg(small, exif=exif(6, ">"))
    yield "exif_twice.jpg", after_soi(jpeg(small), segment(0xE1, exif(6)), segment(0xE1, exif(3)))
    name = b"http://ns.adobe.com/xap/1.0/\0"
    yield "xmp.jpg", after_soi(jpeg(small), segment(0xE1, name + xmp(8)))
    yield "xmp_element.jpg", after_soi(
        jpeg(small), segment(0xE1, name + b"<tiff:Orientation >x<tiff:Orientation>3</tiff:Orientation>")
    )
    yield "xmp_and_exif.jpg", after_soi(
        jpeg(small), segment(0xE1, name + xmp(8)), segment(0xE1, exif(6)), segment(0xE1, b"neither")
    )


def pngs():
    kinds = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
    for color, depth in kinds + [(4, 8), (4, 16), (6, 8), (6, 16)]:
        palette = chunk(b"PLTE", random.bytes(3 << depth)) if color == 3 else b""
        for interlaced in (False, True):
            name = f"png_{color}_{depth}{'_interlaced' if interlaced else ''}.png"
            yield name, png(13, 9, depth, color, interlaced, before=palette)
    yield "png_narrow_interlaced.png", png(1, 3, 8, 2, True)
    short = chunk(b"PLTE", random.bytes(3 * 5))
    yield "png_palette_short.png", png(9, 9, 4, 3, before=short)
    yield "png_palette_transparent.png", png(9, 9, 4, 3, before=short + chunk(b"tRNS", b"\0\x80\xff"))
    yield "png_grey_transparent.png", png(9, 9, 8, 0, before=chunk(b"tRNS", b"\0\x11"))
    yield "png_rgb_transparent.png", png(9, 9, 8, 2, before=chunk(b"tRNS", b"\0\1\0\2\0\3"))
    yield "png_many_idat.png", png(40, 40, 8, 2, idat_bytes=2)
    gamma = chunk(b"gAMA", struct.pack(">I", 30000)) + chunk(b"sBIT", b"\5\6\5")
    gamma += chunk(b"iCCP", b"name\0\0" + zlib.compress(b"?"))
    yield "png_ancillary.png", png(9, 9, 8, 2, before=gamma, after=chunk(b"tEXt", b"key\0value"))
    block = exif(6)[6:]
    yield "png_exif.png", png(9, 5, 8, 2, before=chunk(b"eXIf", block))
    yield "png_exif_behind.png", png(9, 5, 8, 2, after=chunk(b"eXIf", block))
    packet = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(7))
    yield "png_xmp.png", png(9, 5, 8, 2, before=packet)
    yield "png_xmp_and_exif.png", png(9, 5, 8, 2, before=packet + chunk(b"eXIf", block))


def hostile():
    """Seeds for the fuzzer beyond the good pictures: what has to be refused, each for a reason of its own."""
    image = picture(16, 16)
    plain, progressive = jpeg(image), jpeg(image, progressive=True)
    frame = plain.index(b"\xff\xc0")
    yield "two_frames.jpg", plain[:frame] + plain[frame : frame + 19] + plain[frame:]
    yield "lossless.jpg", plain.replace(b"\xff\xc0", b"\xff\xc3", 1)
    yield "twelve_bits.jpg", plain[: frame + 4] + b"\x0c" + plain[frame + 5 :]
    yield "huge.jpg", plain[: frame + 5] + b"\xff\xff\xff\xff" + plain[frame + 9 :]
    yield "flat.jpg", plain[: frame + 5] + b"\0\0" + plain[frame + 7 :]
    yield "sampling.jpg", plain[: frame + 11] + b"\x05" + plain[frame + 12 :]
    yield "two_components.jpg", plain[: frame + 9] + b"\2" + plain[frame + 10 :]
    yield "short_frame.jpg", plain[:frame] + segment(0xC0, b"\x08\0\x10\0")
    yield "no_frame_data.jpg", plain[:frame] + segment(0xC0, b"\x08\0\x10") + plain[frame:]
    for factors in (0x01, 0x10, 0x51, 0x15, 0x44):
        yield f"sampling_{factors:02x}.jpg", plain[: frame + 11] + bytes([factors]) + plain[frame + 12 :]
    yield "no_scan.jpg", plain[: plain.index(b"\xff\xda")] + plain[-2:]
    yield "no_frame_before_scan.jpg", plain[:frame] + plain[frame + 19 :]
    yield "other_markers.jpg", after_soi(plain, b"\xff\x01", segment(0xC8, b"reserved"), segment(0xCC, b"\0\x10"))
    yield "unreadable_table.jpg", after_soi(plain, segment(0xDB, b"\x0f" + b"\x01" * 64))
    yield "empty_application.jpg", after_soi(plain, segment(0xE1, b""), segment(0xE1, b"Exif\0\0"))
    for name, width, height in (("wide", 5000, 8), ("large", 600, 600), ("memory", 512, 512)):
        size = struct.pack(">HH", height, width)
        yield f"{name}.jpg", plain[: frame + 5] + size + plain[frame + 9 :]
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        turned = chunk(b"eXIf", exif(8)[6:])
        yield f"{name}.png", png(9, 9, 8, 2)[:8] + chunk(b"IHDR", header) + turned + png(9, 9, 8, 2)[33:]
    progressive_frame = progressive.index(b"\xff\xc2")
    size = struct.pack(">HH", 512, 512)
    yield "memory_progressive.jpg", progressive[: progressive_frame + 5] + size + progressive[progressive_frame + 9 :]
    jfif = plain.index(b"JFIF")
    yield "jfif_revision.jpg", plain[: jfif + 5] + b"\x09" + plain[jfif + 6 :]
    yield "short_segment.jpg", plain[:4] + b"\0\1" + plain[6:]
    yield "cut_segment.jpg", plain[: frame + 12]
    yield "cut_length.jpg", plain[: frame + 3]
    yield "cut_scan.jpg", plain[:-40]
    yield "no_frame.jpg", plain[:2] + plain[-2:]
    yield "two_starts.jpg", plain[:2] + plain
    yield "no_scan_data.jpg", plain[: plain.index(b"\xff\xda") + 14] + plain[-2:]
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "many_scans.jpg", progressive[:-2] + scan * 120 + progressive[-2:]
    yield "no_huffman_table.jpg", plain.replace(b"\xff\xc4", b"\xff\xfe")
    for name, block in {
        "short": b"II*\0",
        "magic": b"II+\0\x08\0\0\0\1\0",
        "far": b"MM\0*\xff\xff\xff\xff\0\1",
        "end": b"II*\0\x08\0\0\0\xff\xff\x12\1\3\0\1\0\0\0\6\0",
        "types": b"II*\0\x08\0\0\0\3\0\x12\1\x08\0\1\0\0\0\6\0\0\0\x12\1\x09\0\1\0\0\0\x09\0\0\0"
        b"\x12\1\5\0\1\0\0\0\6\0\0\0",
        "long": b"MM\0*\0\0\0\x08\0\3\1\x12\0\2\0\0\0\1\0\6\0\0\1\x12\0\4\0\0\0\1\0\0\0\6\1\x12\0\3\0\0\0\2\0\6\0\0",
    }.items():
        yield f"exif_{name}.jpg", after_soi(jpeg(image), segment(0xE1, b"Exif\0\0" + block))
    texts = {"cut": b"=", "other": b"='6'", "end": b">", "letter": b'="x', "colon": b'=":', "nine": b'="9"'}
    for name, text in texts.items():
        packet = b"http://ns.adobe.com/xap/1.0/\0tiff:Orientation" + text
        yield f"xmp_{name}.jpg", after_soi(jpeg(image), segment(0xE1, packet))
    good = png(9, 9, 8, 2)
    yield "cut_chunk.png", good[:60]
    yield "cut_header.png", good[:20]
    yield "no_end.png", good[:-12]
    yield "no_data.png", good[:33] + good[-12:]
    yield "not_a_chunk.png", good[:37] + b"1DAT" + good[41:]
    yield "bad_checksum.png", good[:29] + b"\0\0\0\0" + good[33:]
    yield "bad_data_checksum.png", good[:-16] + b"\0\0\0\0" + good[-12:]
    yield "bad_deflate.png", good[:33] + chunk(b"IDAT", b"\x78\x9c\xff\xff\xff") + good[-12:]
    yield "short_deflate.png", good[:33] + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + good[-12:]
    yield "bad_filter.png", good[:33] + chunk(b"IDAT", zlib.compress(b"\7" * 28 * 9)) + good[-12:]
    yield "first_chunk.png", good[:8] + good[33:]
    yield "no_palette.png", png(9, 9, 8, 3)
    yield "unknown_critical.png", png(9, 9, 8, 2, before=chunk(b"ABCD", b"data"))
    yield "depth.png", png(9, 9, 3, 0)
    yield "huge.png", good[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)) + good[33:]
    yield "flat.png", good[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 0, 8, 2, 0, 0, 0)) + good[33:]
    block = exif(6)[6:]
    broken = chunk(b"eXIf", block)[:-4] + b"\0\0\0\0"
    yield "exif_checksum.png", png(9, 5, 8, 2, before=broken)
    keyword = b"XML:com.adobe.xmp\0"
    yield "xmp_compressed.png", png(9, 5, 8, 2, before=chunk(b"iTXt", keyword + b"\1\0\0\0" + xmp(6)))
    yield "xmp_twice.png", png(9, 5, 8, 2, before=2 * chunk(b"iTXt", keyword + b"\0\0\0\0" + xmp(6)))
    yield "long_header.png", good[:8] + chunk(b"IHDR", b"\0" * 14) + good[33:]
    other = chunk(b"iTXt", keyword[:-1]) + chunk(b"iTXt", b"Comment\0\0\0\0\0some text here")
    yield "xmp_short.png", png(9, 5, 8, 2, before=other)
    yield "webp", b"RIFF\x24\0\0\0WEBPVP8 "
    yield "gif", b"GIF89a"
    yield "bmp", b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0"
    yield "bmp_odd", b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x29\0\0\0\x04\0"
    yield "tiff_little", b"II*\0\x08\0\0\0"
    yield "tiff_big", b"II+\0\x08\0\0\0"
    yield "tiff_big_other", b"MM\0+\0\x08\0\0"
    yield "gif_old", b"GIF87a"
    yield "wave", b"RIFF\x24\0\0\0WAVEfmt "
    yield "avif_sequence", b"\0\0\0\x1cftypavis\0\0\0\0"
    yield "jxl_boxed", b"\0\0\0\x0cJXL \r\n\x87\n"
    yield "tiff", b"MM\0*\0\0\0\x08"
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0"
    yield "avif", b"\0\0\0\x1cftypavif\0\0\0\0"
    yield "mp4", b"\0\0\0\x18ftypisom\0\0\0\0"
    yield "jxl", b"\xff\x0a\xfa\x1f"
    yield "jp2", b"\0\0\0\x0cjP  \r\n\x87\n"
    yield "text", b"BM is how this text begins"
    yield "empty", b""
    yield "short.png", good[:8]
    yield "short.jpg", plain[:3]


def resizes():
    """Up, down, to one pixel, one axis only, tall enough to change the order of the passes, equal."""
    sizes = [(1, 1), (7, 5), (23, 40), (61, 17), (100, 90), (23, 17), (23, 5), (3, 17), (64, 48), (300, 2), (22, 3)]
    for name in ("rgb_444.jpg", "png_many_idat.png", "tall.png"):
        yield from ((name, "bilinear", *size) for size in sizes)
        yield from ((name, "shorter", size, 0) for size in (1, 9, 16, 50))
        yield from ((name, "center", *size) for size in [(4, 4), (5, 6), (16, 11), (30, 8), (8, 60), (90, 91)])


def operate(image, operation, a, b):
    if operation == "bilinear":
        return image.resize((a, b), Image.BILINEAR)
    if operation == "shorter":
        return transforms.Resize(a)(image)
    return transforms.CenterCrop((b, a))(image)


def describe(image):
    return f"{image.width} {image.height} {hashlib.sha1(image.tobytes()).hexdigest()}"


def main():
    for directory in (OUT, CORPUS):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    files = dict([*jpegs(), *pngs(), ("tall.png", png(11, 64, 8, 2))])
    decoded = {}
    for name, data in files.items():
        (OUT / name).write_bytes(data)
        decoded[name] = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    lines = [f"{name} {describe(decoded[name])}\n" for name in files]
    (OUT / "decoded.txt").write_text("".join(lines))
    lines = [f"{name} {op} {a} {b} {describe(operate(decoded[name], op, a, b))}\n" for name, op, a, b in resizes()]
    (OUT / "resized.txt").write_text("".join(lines))
    for name, data in [*files.items(), *((f"bad_{name}", data) for name, data in hostile())]:
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()
