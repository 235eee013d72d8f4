"""The page in a real browser: on a phone, on a desk, on paper."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from unpg.report import load_run, write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install it to check the page's layout"),
]

# In a frame, since the browser's own window cannot be as narrow as a phone.
FRAME = """<!DOCTYPE html><title>waiting</title><body style="margin:0">
<iframe src="copy.html" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>addEventListener("message", e => {{ document.title = e.data }})</script>"""

PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(e => { e.open = true });
  const wide = [...document.querySelectorAll("body *")].filter(e =>
    !e.closest(".scroll > *, pre > *, svg > *") && e.getBoundingClientRect().right > innerWidth + 0.5);
  const cut = [...document.querySelectorAll("figure svg")].filter(svg => { const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].some(e => { const b = e.getBoundingClientRect();
      return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1 }) });
  const small = [...document.querySelectorAll("figure svg text")].map(e => e.getBoundingClientRect().height);
  const broken = [...document.querySelectorAll("img")].filter(e => !e.naturalWidth || !e.alt);
  parent.postMessage([innerWidth, document.documentElement.scrollWidth, Math.min(...small).toFixed(1),
    document.querySelectorAll("figure svg").length, document.querySelectorAll("img").length, broken.length,
    cut.map(e => e.closest("figure").id).join(",") || "none",
    wide.map(e => e.tagName).join(",") || "none"].join(" "), "*");
})</script></body>"""


def browse(folder, *words):
    """What Chromium prints."""
    return subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=4000",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def page(made_runs, every_kind, tmp_path_factory):
    """Two trained runs, two models with a result of each kind, all pictures."""
    runs = [load_run(folder) for folder in (*made_runs[:2], *every_kind)]
    return write_report(tmp_path_factory.mktemp("page") / "report.html", runs, thumbnails=True)


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_overflows_or_is_cut(page, tmp_path, width):
    text = page.read_text(encoding="utf-8")
    (tmp_path / "copy.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, height=900), encoding="utf-8")
    address = (tmp_path / "frame.html").as_uri()
    shown = browse(tmp_path, f"--window-size={max(width, 500) + 60},1000", "--dump-dom", address)
    title = re.search("<title>(.*?)</title>", shown)[1]
    inner, scroll, text_height, drawings, pictures, broken, cut, wide = title.split(" ")
    assert int(inner) == width
    assert int(scroll) <= width
    assert wide == "none"
    assert cut == "none"
    assert int(drawings) >= 25
    assert float(text_height) >= 8  # pixels, line height of the smallest label
    assert int(pictures) >= 4 * 12 * 2 - 4
    assert int(broken) == 0


@pytest.mark.parametrize("width", [390, 1200])
def test_its_picture_shows_a_page(page, tmp_path, width):
    (tmp_path / "copy.html").write_bytes(page.read_bytes())
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, height=3000), encoding="utf-8")
    size = f"--window-size={max(width, 500)},3000"
    browse(tmp_path, size, f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "frame.html").as_uri())
    grey = np.asarray(Image.open(tmp_path / "page.png").convert("L"))[:, :width]
    ink = grey < 200
    assert 0.005 < ink.mean() < 0.4
    assert ink[:300].any()  # the title
    assert ink[-1500:].any()  # and still something far below
    # The margins are white: nothing reaches the edge.
    assert not ink[:, :8].any()
    assert not ink[:, -8:].any()


def test_it_prints_on_pages_with_what_is_folded_on_the_screen(page, tmp_path):
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 8
    # Each of the pictures in the closed sections is an image object of its own.
    assert len(set(re.findall(rb"/Subtype\s*/Image\b", content))) == 1
    assert len(re.findall(rb"/Subtype\s*/Image\b", content)) >= 20
