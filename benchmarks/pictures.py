"""Pictures of what operators see: `python -m benchmarks.pictures docs/img`, from a run of a node in some trouble.

A shop with four pools: `write` is too small for its callers, the workers of `billing` are killed after its server went
away, a worker of `reports` is killed too, `read` does well. It takes about a minute.
"""

from __future__ import annotations

import io
import math
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import actorpool
from actorpool import process
from actorpool.benchmarks import browser
from actorpool.workers import EchoWorker

SECONDS = 45.0
"""For which the shop is open before it is looked at."""
EVERY = 0.5
"""Seconds between two samples, so that charts are full."""


class BillingWorker(EchoWorker):
    """Has a connection to a server, over TCP.

    Args:
        port: of the server, on this host.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def open(self) -> None:
        """Connect."""
        self._line = socket.create_connection(("127.0.0.1", self.port))

    def close(self) -> None:
        """Disconnect."""
        self._line.close()


def find_articles(worker: Any, seconds: float) -> None:
    """What a caller of the shop runs in a worker."""
    time.sleep(seconds)


def store_order(worker: Any, seconds: float) -> None:
    """The same."""
    time.sleep(seconds)


class Shop:
    """A node with callers."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self._closed = threading.Event()
        self._began = time.monotonic()
        self._callers: list[threading.Thread] = []

    def open(self, pool: str, callers: int, function: Any, hold: float, pause: float) -> None:
        """Let so many threads call a function of a pool, now more often and now less."""

        def call(number: int) -> None:
            handle = self.system.pool(pool)
            while not self._closed.is_set():
                tide = 0.5 + 0.5 * math.sin((time.monotonic() - self._began) / 4 + number / 3)
                try:
                    handle.run(function, hold * (0.6 + 0.8 * tide))
                except actorpool.ActorPoolError:
                    continue
                self._closed.wait(pause * 2 * tide)

        self._callers += [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        for thread in self._callers[-callers:]:
            thread.start()

    def close(self) -> None:
        """Let nobody call any more."""
        self._closed.set()
        for thread in self._callers:
            thread.join()


def take_page(system: Any, folder: Path) -> None:
    """The page: in light with a pool opened, in dark, and narrow."""
    from selenium.webdriver.common.by import By

    with browser.chromium() as driver:
        browser.prefer(driver, prefers_color_scheme="light", prefers_reduced_motion="reduce")
        browser.resize(driver, 1280, 800)
        driver.get(system.dashboard)
        time.sleep(3)
        driver.save_screenshot(str(folder / "dashboard-light.png"))
        browser.prefer(driver, prefers_color_scheme="dark", prefers_reduced_motion="reduce")
        driver.find_element(By.CSS_SELECTOR, "[data-pool=write]").click()
        time.sleep(3)
        browser.resize(driver, 1280, 900)
        driver.save_screenshot(str(folder / "dashboard-dark.png"))
        driver.find_element(By.CSS_SELECTOR, "[data-pool=write]").click()
        browser.prefer(driver, prefers_color_scheme="light", prefers_reduced_motion="reduce")
        browser.resize(driver, 360, 960)
        time.sleep(2)
        driver.save_screenshot(str(folder / "dashboard-narrow.png"))


def take_top(system: Any, file: Path) -> None:
    """A frame of `actorpool top`."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console

    from actorpool.cli.top_screen import Screen, look

    terminal = Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=110, height=14
    )
    frame = look({system.name: system})
    terminal.print(Screen().drawn(frame, terminal.size))
    own_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    text = terminal.export_svg(title=f"actorpool top {system.name}", code_format=own_fonts, unique_id="top")
    file.write_text("\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n")


def main(folder: Path) -> None:
    """Run the shop, and take every picture into a folder."""
    with (
        socket.create_server(("127.0.0.1", 0)) as billing,
        actorpool.start("shop", dashboard=0, metrics_interval=EVERY) as system,
    ):
        system.start_pool("read", worker=EchoWorker, size=5, max_overflow=3)
        system.start_pool("write", worker=EchoWorker, size=4, max_overflow=0, checkout_timeout=20)
        system.start_pool("reports", worker=EchoWorker, size=2, max_overflow=1)
        system.start_pool(
            "billing", worker=BillingWorker, worker_args={"port": billing.getsockname()[1]}, size=3, max_overflow=0
        )
        shop = Shop(system)
        shop.open("read", 5, find_articles, 0.12, 0.1)
        shop.open("write", 7, store_order, 0.9, 0.4)
        shop.open("billing", 1, find_articles, 0.05, 0.4)
        try:
            time.sleep(SECONDS)
            billing.close()
            for worker in [*system.pool("billing").workers(), system.pool("reports").workers()[0]]:
                process.kill(worker.pid)
            time.sleep(4)
            take_page(system, folder)
            take_top(system, folder / "top.svg")
        finally:
            shop.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
