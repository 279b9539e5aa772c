"""A page in a headless browser: a script at its end looks at it and leaves what it found."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
DARK = "--blink-settings=preferredColorScheme=0"


def browse(page: str, probe: str, folder: Path, width: int = 1200, height: int = 850, *flags: str) -> dict[str, Any]:
    """Open a page in a frame of some size, run a script that fills ``found``, and read that.

    A frame, since a headless window is never as narrow as a phone. A mistake in the page or the script is the answer.
    """
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    script = f"""<output id="probe"></output><script>
        const found = {{}};
        const settled = () => new Promise(done => setTimeout(done, 30));
        (async () => {{ {probe} }})().catch(error => {{ found.error = String(error) + error.stack; }}).then(() => {{
          document.getElementById("probe").textContent = JSON.stringify(found);
          parent.postMessage("done", "*");
        }});</script>"""
    folder.joinpath("page.html").write_text(page + script, encoding="utf-8")
    outer = f"""<iframe src="page.html" style="width: {width}px; height: {height}px"></iframe>
        <output id="probe"></output><script>onmessage = () => {{ document.getElementById("probe").textContent =
          frames[0].document.getElementById("probe").textContent }}</script>"""
    folder.joinpath("outer.html").write_text(outer, encoding="utf-8")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom", *flags]
    command = [
        browser,
        *switches,
        "--virtual-time-budget=60000",
        f"--user-data-dir={folder / 'profile'}",
        folder.joinpath("outer.html").as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    text = re.search(r'<output id="probe">(.+?)</output>', result.stdout, flags=re.DOTALL)
    assert text, result.stderr[-2000:]
    found = dict(json.loads(html.unescape(text[1])))
    assert "error" not in found, found["error"]
    return found
