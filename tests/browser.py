"""Reports as a browser shows them: Debian's Chromium, driven without a screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

QUIET: Final = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
]
"""What keeps Chromium from asking the network for things of its own, and from needing much shared memory."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; a test fails where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("reports are tested in Chromium: install Debian's package chromium")
    with sync_playwright() as playwright:
        # Its sandbox refuses to work for root.
        arguments = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else QUIET
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@dataclass
class Shown:
    """A page, and what went on in it: console messages, errors, dialogs, and addresses asked for."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)


@contextmanager
def shown(browser: Browser, path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Shown]:
    """The file at this path, opened."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    found = Shown(page)
    page.on("console", lambda message: found.messages.append(message.text))
    page.on("pageerror", lambda error: found.messages.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))

    def dismissed(dialog: Any) -> None:
        found.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismissed)
    page.goto(path.as_uri())
    yield found
    page.close()
