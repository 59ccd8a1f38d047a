"""A headless Chromium, where there is one: opens a page, plays a script in it, and returns what the script wrote."""

import json
import re
import shutil
import subprocess
from html import unescape

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)


def play(page, script, tmp_path):
    """What `script`, the body of a function run once the page is there, returns; and what the console said."""
    text = page.read_text(encoding="utf-8")
    end = f"<script>document.title = JSON.stringify((() => {{{script}}})());</script></body>"
    copy = page.with_name("played.html")
    copy.write_text(text.replace("</body>", end), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--enable-logging=stderr", "--window-size=1200,900", "--dump-dom"]
    done = subprocess.run([PROGRAM, *options, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]
    return json.loads(unescape(title)), console
