"""The page of `dfl serve` in Chromium, from the verb to the pictures; no part of the suite.

    python tests/serve_page.py CHECKPOINT IMAGE FOLDER

It chooses the image as a person does, asks for changed copies, and saves the page at the widths of a desk and of a
phone. It fails where the page logs an error or asks for an address of another server.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from browser import Browser

WIDTHS = (1200, 390)


def look(address: str, image: Path, folder: Path, width: int) -> None:
    """Use the page at one width."""
    with tempfile.TemporaryDirectory() as profile, Browser(address, Path(profile), width) as page:
        page.until("about !== null")
        page.choose("#drop input", image)
        page.until("!$('answer').hidden || !$('error').hidden")
        assert page.value("$('error').textContent") == ""
        page.value("$('try').click()")
        page.until("$('changes').rows.length > 0")
        page.until("$('picture').querySelector('img').complete")
        print(
            width,
            page.value("[$('verdict').textContent, $('score').textContent, $('changes').rows.length].join(' | ')"),
        )
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.problems() == []
        others = {url for url in page.requests() if not url.startswith((address, "blob:"))}
        assert not others, others
        page.picture(folder / f"serve_{width}.png")


def main(checkpoint: str, image: str, folder: str) -> None:
    """Serve, look, and stop."""
    words = [sys.executable, "-m", "dfl", "serve", f"--ckpt_path={checkpoint}", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            address = next(line.split()[2].rstrip(",") for line in process.stdout if line.startswith("serving at"))
            for width in WIDTHS:
                look(address, Path(image), Path(folder), width)
        finally:
            process.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
