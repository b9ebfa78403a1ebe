"""The page as a browser shows it: on a telephone and a desk, in the light and in the dark, without any other file."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: install chromium or google-chrome")

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,900"),
    *("--enable-logging=stderr", "--v=0", "--dump-dom"),
]
_DARK = "--blink-settings=preferredColorScheme=0"

# A window has a least width, a frame has none: the page is looked at in a frame, which tells what it finds.
_FRAME = """<!DOCTYPE html>
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<script>addEventListener("message", told => { document.querySelector("pre").textContent = told.data; });</script>
<iframe src="page.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe><pre></pre>
"""
_PROBE = """<script>
addEventListener("load", () => {
  const background = selector => getComputedStyle(document.querySelector(selector)).backgroundColor;
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  const found = {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    images: [...document.images].map(image => image.naturalWidth),
    shown: [...document.images].map(image => image.getBoundingClientRect().width),
    resources: performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 80)),
    body: background("body"),
    card: background(".picture"),
  };
  console.info("probed");
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""


def looked_at(page, folder, width, dark):
    """What the probe finds in a copy of the page, and what the browser has said on the console."""
    text = page.read_text(encoding="utf-8").replace("</head>", f"{_PROBE}</head>")
    (folder / "page.html").write_text(text, encoding="utf-8")
    (folder / "frame.html").write_text(_FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    options = [f"--user-data-dir={folder / 'profile'}", *([_DARK] if dark else []), (folder / "frame.html").as_uri()]
    done = subprocess.run([BROWSER, *_FLAGS, *options], capture_output=True, text=True, timeout=120)
    told = re.search(r"<pre>(.+?)</pre>", done.stdout)
    assert told, f"the page has told nothing: {done.stderr[-2000:]}"
    return json.loads(unescape(told[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_page(made, tmp_path, width, dark):
    found, said = looked_at(made.page, tmp_path, width, dark)
    assert found["width"] == width
    assert found["page"] <= width  # also with all tables and configurations opened
    assert len(found["images"]) == 2
    assert all(natural > 0 for natural in found["images"])
    assert all(name.startswith("data:") for name in found["resources"])
    assert found["card"] == "rgb(255, 255, 255)"
    assert (max(map(int, re.findall(r"\d+", found["body"]))) < 64) == dark
    assert found["shown"][0] < 220  # a small figure is not blown up
    assert found["shown"][1] > 500  # and a wide one not shrunk until nothing can be read
    assert len(said) == 1, said  # the probe's own
    assert "probed" in said[0]
