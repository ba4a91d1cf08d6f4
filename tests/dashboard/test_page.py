"""The page in a real browser: Chromium, driven by selenium. Without them these tests are skipped.

What is seen in each colour scheme and width is kept as pictures in the directory that ACTORPOOL_PICTURES names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import actorpool
from actorpool.workers import EchoWorker

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver import Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from actorpool.benchmarks import browser  # noqa: E402
from actorpool.dashboard.streams import frame  # noqa: E402
from tests.dashboard.serving import serving  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("ACTORPOOL_AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
PICTURES = os.environ.get("ACTORPOOL_PICTURES")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(browser.missing()), reason=f"needs {' and '.join(browser.missing())}"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def node():
    with actorpool.start("shop", dashboard=0, metrics_interval=0.2) as system:
        system.start_pool("write", worker=EchoWorker, size=2, max_overflow=0)
        system.start_pool("read", worker=EchoWorker, size=4, max_overflow=2)
        yield system


@pytest.fixture
def driver():
    with browser.chromium() as driver:
        yield driver


@pytest.fixture
def page(driver, node, eventually):
    """The page as it is when it was just opened; no message may be left on the console of the browser."""
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(node.dashboard)
    eventually(lambda: text(driver, "#live") == "live", timeout=20)
    yield driver
    assert driver.get_log("browser") == []


def text(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector).text


def press(driver, selector, eventually):
    """Click on what may be drawn anew in the same moment."""
    eventually(lambda: driver.find_element(By.CSS_SELECTOR, selector).click() or True, timeout=10)


def picture(driver, name):
    """Keep what is shown, where a run keeps pictures."""
    if PICTURES:
        os.makedirs(PICTURES, exist_ok=True)
        driver.save_screenshot(os.path.join(PICTURES, f"{name}.png"))


def offences(driver):
    """What axe-core finds wrong with the page as it is shown."""
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script("axe.run().then(arguments[0])")
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]]


def hold(connection, seconds):
    time.sleep(seconds)


@pytest.fixture
def busy(node):
    """Both workers of `write` are out, and two callers wait."""
    stopping = threading.Event()

    def call():
        while not stopping.is_set():
            with contextlib.suppress(actorpool.CheckoutTimeout):  # a machine under load
                node.pool("write").run(hold, 0.4)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield
    stopping.set()
    for thread in threads:
        thread.join()


def test_the_restart_of_a_killed_worker_appears_without_a_reload(page, node, eventually):
    page.execute_script("window.marked = true")
    victim = node.pool("read").workers()[0].pid
    eventually(lambda: str(victim) in text(page, "#tree"), timeout=10)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: page.find_elements(By.CSS_SELECTOR, "#tree .restarted del"), timeout=10)
    eventually(lambda: "worker.restarted" in text(page, "#events"), timeout=10)
    assert str(victim) in text(page, "#tree .restarted")
    assert page.execute_script("return window.marked")


def test_what_needs_attention_is_said_with_commands_and_in_the_title(page, busy, eventually):
    eventually(lambda: "write:" in text(page, "#needs"), timeout=15)
    assert page.title.startswith("(1) shop")
    assert "actorpool status shop write" in text(page, "#needs")


def test_charts_of_an_opened_pool_move_and_have_one_cursor(page, busy, eventually):
    press(page, "[data-pool=write]", eventually)
    eventually(lambda: len(page.find_elements(By.CSS_SELECTOR, ".chart polyline")) >= 5, timeout=10)
    assert page.current_url.endswith("#pool=write")

    def line():
        return page.execute_script("return document.querySelector('.chart polyline').getAttribute('points')")

    before = line()
    eventually(lambda: line() != before, timeout=20)
    places = "return [...document.querySelectorAll('.chart .cursor')].map(each => each.getAttribute('x1'))"

    def moved():
        page.find_element(By.CSS_SELECTOR, ".moment input").send_keys(Keys.ARROW_LEFT)
        cursors = page.execute_script(places)
        return len(cursors) >= 4 and set(cursors) != {"100"} and len(set(cursors)) == 1

    eventually(moved, timeout=10)


def test_a_stream_that_is_cut_comes_back(page, node, eventually):
    page.execute_cdp_cmd("Network.enable", {})
    cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
    keeper = next(child for child in node.tree().children[0].children if child.id == "dashboard").children[0]
    os.kill(keeper.pid, signal.SIGKILL)
    eventually(lambda: text(page, "#live").startswith("stale since "), timeout=20)
    whole = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", whole)
    eventually(lambda: text(page, "#live") == "live", timeout=40)
    page.get_log("browser")  # the browser itself tells of connections that failed


@pytest.fixture(
    params=[("light", 1400), ("dark", 1400), ("light", 360), ("dark", 360)], ids=lambda each: f"{each[0]}-{each[1]}"
)
def shown(request, page, busy, eventually):
    """The page with a pool opened and another in need, in a colour scheme and a width."""
    scheme, pixels = request.param
    browser.prefer(page, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    browser.resize(page, pixels, 900)
    press(page, "[data-pool=write]", eventually)
    eventually(lambda: page.find_elements(By.CSS_SELECTOR, ".chart polyline"), timeout=10)
    eventually(lambda: "write:" in text(page, "#needs"), timeout=15)
    page.execute_script("document.activeElement.blur()")
    picture(page, f"{request.node.name.partition('[')[0]}-{scheme}-{pixels}")
    yield page
    browser.prefer(page)
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_scrolls_across(shown):
    across = shown.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1]


@pytest.mark.skipif(not AXE.exists(), reason=f"needs axe-core: npm install --no-save axe-core (looked for {AXE})")
def test_axe_finds_no_barrier(shown):
    assert offences(shown) == []


def test_everything_is_reached_with_the_keyboard_alone(page, eventually):
    page.find_element(By.CSS_SELECTOR, "body").send_keys(Keys.TAB)
    seen = []
    for _ in range(40):
        active = page.switch_to.active_element
        seen.append(active.get_attribute("data-pool") or active.get_attribute("id") or active.text)
        if active.get_attribute("data-pool"):
            break
        active.send_keys(Keys.TAB)
    assert {"search", "theme"} <= set(seen)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    eventually(lambda: page.find_elements(By.CSS_SELECTOR, "tr.detail-row"), timeout=5)
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    eventually(lambda: not page.find_elements(By.CSS_SELECTOR, "tr.detail-row"), timeout=5)
    assert page.switch_to.active_element.get_attribute("data-pool") == seen[-1]


def test_without_scripts_there_is_a_table_of_the_pools(driver, node):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(node.dashboard)
        rows = [row.text for row in driver.find_elements(By.CSS_SELECTOR, "#pool-table tbody tr")]
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert sorted(row.split()[0] for row in rows) == ["read", "write"]


def test_search_and_chips_choose_pools_and_events(page, eventually):
    eventually(lambda: "pool.started" in text(page, "#events"), timeout=10)
    page.find_element(By.XPATH, "//div[@id='chips']/button[text()='pool']").click()
    eventually(lambda: "pool.started" not in text(page, "#events"), timeout=5)
    page.find_element(By.ID, "search").send_keys("writ")
    eventually(lambda: len(page.find_elements(By.CSS_SELECTOR, "#pool-table tbody tr")) == 1, timeout=5)


# -- the streams of several tabs ------------------------------------------------------------------------------------


@pytest.fixture
def served(node):
    """A server whose readers can be counted."""
    with serving(lambda: actorpool.connect("shop")) as served:
        yield served


def live(driver, handle):
    driver.switch_to.window(handle)
    return text(driver, "#live") == "live"


def hide(driver, hidden):
    """Have the page believe that its tab is hidden, or shown again: a browser without a window hides none."""
    driver.execute_script(
        "Object.defineProperty(document, 'hidden', { get: () => arguments[0], configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))".replace("arguments[0]", str(hidden).lower())
    )


def test_all_tabs_of_a_browser_share_one_stream_and_another_takes_over(driver, node, served, eventually):
    driver.get(served.url)
    first = driver.current_window_handle
    eventually(lambda: "pool.started" in text(driver, "#events"), timeout=20)
    driver.switch_to.new_window("window")
    second = driver.current_window_handle
    driver.get(served.url)
    eventually(lambda: live(driver, second), timeout=20)
    eventually(lambda: "pool.started" in text(driver, "#events"), timeout=20)  # what was there before it came
    assert served.readers == 1
    node.start_pool("later", worker=EchoWorker, size=1)
    eventually(lambda: "later" in text(driver, "#events"), timeout=20)
    driver.switch_to.window(first)
    driver.close()
    driver.switch_to.window(second)
    node.stop_pool("later")
    eventually(lambda: "pool.stopped" in text(driver, "#events"), timeout=20)
    assert served.readers == 1


def test_a_hidden_tab_has_no_stream_and_is_live_again_when_it_is_shown(driver, node, served, eventually):
    driver.get(served.url)
    eventually(lambda: text(driver, "#live") == "live" and served.readers == 1, timeout=20)
    hide(driver, True)
    eventually(lambda: served.readers == 0, timeout=20)
    node.start_pool("later", worker=EchoWorker, size=1)
    assert "later" not in text(driver, "#pool-table")
    hide(driver, False)
    eventually(lambda: "later" in text(driver, "#pool-table") and "later" in text(driver, "#events"), timeout=20)
    assert served.readers == 1


def test_the_page_goes_on_with_another_node_under_the_same_name(driver, eventually):
    with serving(lambda: actorpool.connect("market")) as served:
        with actorpool.start("market") as node:
            for name in ("old", "older", "oldest"):
                node.start_pool(name, worker=EchoWorker, size=1)
            driver.get(served.url)
            eventually(lambda: "oldest" in text(driver, "#events"), timeout=20)
        eventually(lambda: text(driver, "#live").startswith("stale since "), timeout=20)
        with actorpool.start("market") as node:
            node.start_pool("new", worker=EchoWorker, size=1)
            eventually(lambda: text(driver, "#live") == "live" and "new" in text(driver, "#events"), timeout=30)
            eventually(lambda: "old" not in text(driver, "#events"), timeout=10)
            assert "old" not in text(driver, "#pool-table tbody")
            assert text(driver, "#problem") == ""


# -- what is seen of a pool -----------------------------------------------------------------------------------------


def test_an_opened_pool_shows_workers_memory_leases_and_settings(page, busy, eventually):
    press(page, "[data-pool=write]", eventually)
    shown = eventually(lambda: "Held by" in text(page, ".detail") and text(page, ".detail"), timeout=20)
    assert "MiB" in shown
    assert "test_page" in shown or f"pid {os.getpid()}" in shown
    page.find_element(By.CSS_SELECTOR, ".config summary").click()
    eventually(lambda: "max_overflow" in text(page, ".config"), timeout=5)
    selected = ""
    for _ in range(3):  # a pool that comes to need more attention moves up, and the selection is lost then
        page.execute_script("getSelection().selectAllChildren(document.querySelector('.facts'))")
        time.sleep(6)  # it is asked for anew meanwhile
        assert "max_overflow" in text(page, ".config")  # still unfolded
        if selected := page.execute_script("return getSelection().toString()"):
            break
    assert "checkouts" in selected


def test_what_pools_and_programs_say_stays_text(driver, node, served, eventually):
    driver.get(served.url)
    eventually(lambda: text(driver, "#live") == "live" and served.readers == 1, timeout=20)
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    told = {
        "number": 10**6,
        "time": 1.0,
        "name": "worker.died",
        "pool": evil,
        "measurements": {},
        "metadata": {"worker": 1, "reason": evil},
    }
    served.send([frame(told, number=10**6)])
    eventually(lambda: evil in text(driver, "#events"), timeout=10)
    assert driver.execute_script("return window.hacked") is None
    assert not driver.find_elements(By.CSS_SELECTOR, "#events img")
