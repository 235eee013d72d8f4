import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpg.data import SizeError
from unpg.data.decode import decode, decode_sized, file_content, require_size
from unpg.errors import DataError


def encoded(kind, mode="RGB", size=(20, 16), **options):
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).resize((64, 48)).convert(mode)
    file = io.BytesIO()
    base.save(file, kind, **options)
    return file.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(params=["simplejpeg", "pillow only"])
def decoder(request, monkeypatch):
    if request.param == "pillow only":
        monkeypatch.setattr("unpg.data.decode.simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 90, "progressive": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("PPM", "L", {}),
        ("TIFF", "RGB", {}),
    ],
)
def test_every_kind_gives_what_pillow_gives(decoder, kind, mode, options):
    data = encoded(kind, mode, **options)
    got = decode(data)
    assert got.shape == (48, 64, 3)
    assert got.dtype == np.uint8
    # Two builds of libjpeg may round a color conversion differently.
    assert np.abs(got.astype(int) - pillow(data)).max() <= (2 if kind == "JPEG" else 0)


def test_grey_becomes_three_equal_channels(decoder):
    got = decode(encoded("JPEG", "L"))
    assert (got[..., 0] == got[..., 1]).all()
    assert (got[..., 0] == got[..., 2]).all()


def test_a_cmyk_jpeg_is_left_to_pillow(decoder):
    data = encoded("JPEG", "CMYK")
    assert (decode(data) == pillow(data)).all()


def test_a_palette_with_transparency_gives_its_colors_without_a_warning():
    data = encoded("PNG", "P", transparency=bytes([0, 128, 255]))
    assert decode(data).shape == (48, 64, 3)


def test_the_rotation_flag_is_ignored(decoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("JPEG", exif=exif)
    assert decode(data).shape == (48, 64, 3)


def test_paths_and_bytes_are_the_same(tmp_path, decoder):
    data = encoded("JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    assert (decode(tmp_path / "a.jpg") == decode(data)).all()
    assert (decode(str(tmp_path / "a.jpg")) == decode(data)).all()


def test_the_result_can_be_written_to(decoder):
    for kind in ("JPEG", "PNG"):
        decode(encoded(kind))[0, 0] = 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, I am a text", "is not an image of a known kind"),
        (encoded("JPEG")[: len(encoded("JPEG")) // 2], "is broken"),
        (encoded("JPEG")[:30], "is broken|not an image"),
        (encoded("PNG")[:200], "is broken"),
        (b"\xff\xd8\xff" + bytes(100), "is broken|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "is not an image of a known kind"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, decoder, content, match):
    path = tmp_path / "face 7.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        decode(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.jpg cannot be read: No such file"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        decode(tmp_path)


def test_bytes_can_be_given_a_name():
    with pytest.raises(DataError, match=r"record 5 is empty"):
        decode(b"", name="record 5")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_too_many_pixels_are_refused(decoder, kind):
    with pytest.raises(DataError, match=r"48 x 64 pixels, more than the 3,071 allowed"):
        decode(encoded(kind), max_pixels=48 * 64 - 1)
    assert decode(encoded(kind), max_pixels=48 * 64).shape == (48, 64, 3)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = (50_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(DataError, match=r"broken|more than the 64,000,000 allowed"):
        decode(bomb)


def test_sixteen_bits_are_refused_rather_than_clipped():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1000, dtype=np.uint16)).save(file, "PNG")
    with pytest.raises(DataError, match="8 bits per channel"):
        decode(file.getvalue())


def test_another_size_says_what_to_do():
    image = np.zeros((5, 6, 3), np.uint8)
    assert require_size(image, (5, 6), "a", "b") is image
    with pytest.raises(SizeError, match=r"a.jpg is 5 x 6 .* b.jpg of the same set is 6 x 5.*align the faces"):
        require_size(image, (6, 5), "a.jpg", "b.jpg")


@pytest.mark.data
def test_real_faces_decode_as_pillow_does(faces):
    for path in sorted((faces / "lfw" / "images").glob("A*/*.jpg"))[:50]:
        truth = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.abs(decode(path) - truth).max() <= 2


def test_an_image_is_decoded_in_place(tmp_path):
    rng = np.random.default_rng(0)
    truth = {}
    for i, ending in enumerate(["jpg", "png", "jpg"]):
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(tmp_path / f"{i}.{ending}")
        truth[i] = decode(tmp_path / f"{i}.{ending}")
    for i, file in enumerate(sorted(tmp_path.glob("?.???"))):
        data = file_content(file, "it")
        assert data == file.read_bytes()
        batch = np.zeros((3, 8, 9, 3), np.uint8)
        out = decode_sized(data, (8, 9), lambda: "it", "first", batch[1])
        assert np.may_share_memory(out, batch)
        assert np.array_equal(batch[1], truth[i])
        assert not batch[[0, 2]].any()
        assert np.array_equal(decode_sized(data, (8, 9), lambda: "it", "first"), truth[i])
        with pytest.raises(SizeError, match=r"it is 8 x 9 pixels .*but first of the same set is 9 x 8"):
            decode_sized(data, (9, 8), lambda: "it", "first", np.zeros((9, 8, 3), np.uint8))
        with pytest.raises(DataError, match="^it is"):
            decode_sized(data[:3], (8, 9), lambda: "it", "first")
    with pytest.raises(DataError, match="it is empty"):
        decode_sized(b"", (8, 9), lambda: "it", "first")


def test_files_of_any_length_are_read_whole(tmp_path, monkeypatch):
    for length in (0, 1, 70_000, (1 << 20) + 1):
        (tmp_path / "a").write_bytes(bytes(length))
        assert file_content(tmp_path / "a", "it") == bytes(length)
    if Path("/proc/self/status").exists():  # a file that says nothing of its size
        assert file_content("/proc/self/status", "it").startswith(b"Name:")
    monkeypatch.setattr("unpg.data.decode._MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(bytes(1001))
    with pytest.raises(DataError, match="it has more than 1,000 bytes"):
        file_content(tmp_path / "a", "it")
    with pytest.raises(DataError, match="it cannot be read: Is a directory"):
        file_content(tmp_path, "it")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_a_head_of_60_000_x_60_000_is_refused_before_memory_is_asked_for(form):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form)
    data = bytearray(file.getvalue())
    at, size, order = {"PNG": (16, 4, "big"), "BMP": (18, 4, "little"), "JPEG": (data.find(b"\xff\xc0") + 5, 2, "big")}[
        form
    ]
    data[at : at + 2 * size] = (60_000).to_bytes(size, order) * 2
    if form == "PNG":
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"face\.img would have .*more than the 64,000,000"):
        decode(bytes(data), name="face.img")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_path_that_no_file_can_have():
    for path in ("a\0b.png", "\ud800.png", "x" * 5000):
        with pytest.raises(DataError, match="is no path|cannot be read"):
            decode(path)
