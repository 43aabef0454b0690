"""`teskd reference FILE.csv`: images of every kind that Pillow writes, whole, cut and scaled, equal Pillow's to the bit; and
a wrong number, a refusal and a broken table are noticed."""

import io
import os
import pathlib
import struct
import sys
import tarfile
import unittest
import zlib

import numpy

from program import ProgramTest

try:
    from PIL import Image
except ImportError:
    sys.exit(77)

COLUMNS = "path,kind,x,y,w,h,out_w,out_h,crc32"


def picture(width, height, seed=0):
    """Waves and noise in three channels."""
    random = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    waves = [128 + 90 * numpy.sin(0.1 * (c + 1) * x + 0.07 * y) for c in range(3)]
    noisy = numpy.stack(waves, axis=-1) + random.integers(-30, 31, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def interlaced_png(image):
    """Adam7, which Pillow reads but does not write."""
    pixels, rows = numpy.asarray(image), b""
    for top, left, down, across in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = pixels[top::down, left::across]
        rows += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(width, height, channels):
    """16 bits a channel: the upper eight are what counts."""
    values = numpy.random.default_rng(3).integers(0, 65536, (height, width, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    upper = (values >> 8).astype(numpy.uint8)
    return file, Image.fromarray(upper if channels == 3 else numpy.repeat(upper, 3, axis=2))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class Images(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.random = numpy.random.default_rng(7)

    def setUp(self):
        super().setUp()
        self.rows = []

    def add(self, name, content, image=None, views=6):
        """A file with rows for what Pillow, or `image`, makes of it."""
        pathlib.Path(self.path(name)).write_bytes(content)
        image = image or Image.open(io.BytesIO(content)).convert("RGB")
        width, height = image.size
        self.row(name, "decode", (0, 0, width, height), (width, height), image)
        for _ in range(views):
            w, h = int(self.random.integers(1, width + 1)), int(self.random.integers(1, height + 1))
            x, y = int(self.random.integers(0, width - w + 1)), int(self.random.integers(0, height - h + 1))
            out = tuple(int(side) for side in self.random.integers(1, 120, 2))
            scaled = image.crop((x, y, x + w, y + h)).resize(out, Image.BILINEAR)
            self.row(name, "crop", (x, y, w, h), out, scaled)
            w, h = int(self.random.integers(1, out[0] + 1)), int(self.random.integers(1, out[1] + 1))
            x, y = out[0] - w, out[1] - h
            part = image.resize(out, Image.BILINEAR).crop((x, y, x + w, y + h))
            self.row(name, "eval", (x, y, w, h), out, part)

    def row(self, name, kind, at, out, image):
        checksum = zlib.crc32(image.tobytes())
        self.rows.append(",".join(map(str, [name, kind, *at, *out])) + f",{checksum:08x}")

    def table(self):
        path = self.path("table.csv")
        pathlib.Path(path).write_text("\n".join([COLUMNS, *self.rows]) + "\n", encoding="utf-8")
        return path

    def compare(self, code=0):
        return self.run_code(code, "reference", self.table(), "--root", self.folder)

    def check(self):
        self.assertIn(f"{len(self.rows)}/{len(self.rows)} rows match", self.compare().out)

    def test_jpeg(self):
        for name, size in (("even", (160, 128)), ("odd", (97, 131)), ("wide", (300, 5)), ("narrow", (3, 211)), ("dot", (1, 1))):
            for subsampling in (0, 1, 2):
                for progressive in (False, True):
                    content = saved(picture(*size), "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
                    self.add(f"{name}_{subsampling}_{progressive}", content)
        self.check()

    def test_jpeg_modes(self):
        for mode in ("L", "CMYK"):
            for progressive in (False, True):
                content = saved(picture(91, 77).convert(mode), "JPEG", quality=85, progressive=progressive)
                self.add(f"{mode}_{progressive}.jpg", content)
        self.add("rotated.jpg", saved(picture(50, 30), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"))
        self.check()

    def test_png_modes(self):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
            self.add(f"{mode}.JPEG", saved(picture(83, 61).convert(mode), "PNG"))
        self.add("clear.png", saved(picture(20, 30), "PNG", transparency=(1, 2, 3)))
        palette = picture(31, 33).quantize(7)
        self.add("few.png", saved(palette, "PNG", bits=4, transparency=0))
        for size in ((1, 1), (3, 2), (8, 8), (45, 37)):
            self.add(f"interlaced{size[0]}.png", interlaced_png(picture(*size)))
        for channels in (1, 3):
            self.add(f"deep{channels}.png", *deep_png(21, 17, channels))
        self.check()

    def test_refused(self):
        whole = saved(picture(60, 50), "JPEG")
        for name, content in (("empty", b""), ("text", b"no image\n"), ("half", whole[:len(whole) // 2]), ("header", whole[:200]),
                              ("png", saved(picture(60, 50), "PNG")[:900])):
            pathlib.Path(self.path(name)).write_bytes(content)
            self.rows.append(f"{name},error,0,0,0,0,0,0,OSError")
        self.check()
        self.assertIn("ends too early", self.compare().out)

    def test_differences(self):
        self.add("right.jpg", saved(picture(60, 50), "JPEG"), views=0)
        self.rows.append(self.rows[0][:-8] + "00000000")
        self.rows.append("right.jpg,error,0,0,0,0,0,0,OSError")
        self.rows.append("right.jpg,crop,1,0,60,50,10,10,00000000")
        result = self.compare(code=1)
        self.assertEqual(result.out.count("DIFFERS"), 3, str(result))
        self.assertIn("1/4 rows match", result.out)
        self.refused(result, "table.csv", "3 of 4 rows differ")

    def test_broken_tables(self):
        for row, words in (("a,b", ("line 2", "columns")), ("a,half,1,1,1,1,1,1,00000000", ("line 2", "half", "eval")),
                           ("a,crop,1,1,x,1,1,1,00000000", ("line 2", "whole numbers")),
                           ("a,crop,1,1,1,1,1,1,0", ("line 2", "hexadecimal")), ("a,decode,0,0,1,1,1,1,00000000", ("/a: ",))):
            with self.subTest(row=row):
                self.rows = [row]
                self.refused(self.compare(code=1), "table.csv", *words)
        self.rows = []
        self.refused(self.compare(code=1), "no rows")
        self.refused(self.run_code(2, "reference", self.table()), "--root")
        self.refused(self.run_code(2, "reference", "x.h5", "--root", self.folder), "--root")

    def test_real_images(self):
        shared = os.environ.get("TESKD_SHARED")
        if not shared:
            print("TESKD_SHARED is not set: real images were not compared", file=sys.stderr)
            return
        for archive, table in (("imagenet-sample-200", "pil_imagenet_sample"), ("jpeg-odd", "pil_jpeg_odd")):
            with tarfile.open(f"{shared}/data/{archive}.tar") as tar:
                tar.extractall(self.folder)
            result = self.run_code(0, "reference", f"{shared}/reference/{table}.csv", "--root", self.path(archive))
            self.assertNotIn("DIFFERS", result.out)


if __name__ == "__main__":
    unittest.main()
