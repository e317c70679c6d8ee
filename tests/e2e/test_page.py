"""The page in a real browser: it chats, stops, shows probabilities, charts, lists and cancels, in two languages."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving, wait_for

pytestmark = pytest.mark.slow  # a browser; made in `make e2e`
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing(what: str) -> None:
    """A skip for a user, a failure in CI."""
    assert not os.environ.get("CI"), what
    pytest.skip(what)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("page"), "--served-model-name", "tiny") as it:
        yield it


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api") if not os.environ.get("CI") else __import__("playwright.sync_api")
    api = getattr(api, "sync_api", api)
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        missing("no Chromium here: apt-get install chromium")
    with api.sync_playwright() as playwright:
        it = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield it
        it.close()


@pytest.fixture
def page(browser, server: Running):
    context = browser.new_context(viewport={"width": 1200, "height": 850}, locale="en-US", color_scheme="light")
    context.add_init_script(f"sessionStorage.getItem('vllm-key') ?? sessionStorage.setItem('vllm-key', '{KEY}')")
    it = context.new_page()
    it.faults = []
    it.on("console", lambda message: it.faults.append(message.text) if message.type == "error" else None)
    it.on("pageerror", lambda error: it.faults.append(str(error)))
    it.foreign = []
    it.on("request", lambda asked: it.foreign.append(asked.url) if str(server.port) not in asked.url else None)
    it.goto(f"http://127.0.0.1:{server.port}/")
    it.wait_for_selector("#status.good")
    yield it
    assert not it.faults, it.faults
    assert not it.foreign, it.foreign
    context.close()


def shoot(page, name: str) -> None:
    """A picture, where somebody asked for pictures."""
    if folder := os.environ.get("SCREENSHOTS"):
        size = page.viewport_size
        if name.startswith("dashboard"):
            page.set_viewport_size({"width": 1200, "height": 1010})
            page.wait_for_timeout(1200)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
        page.set_viewport_size(size)


def until(page, condition: str, seconds: float = 20.0) -> None:
    """Wait for a condition in the page's words; the page's own rules forbid the browser's waiting for strings."""
    wait_for(lambda: page.evaluate(condition), seconds, condition)


def ask(page, said: str) -> None:
    page.fill("#prompt", said)
    page.press("#prompt", "Enter")
    page.wait_for_selector("#send:visible", timeout=90_000)


def last_answer(page) -> str:
    return page.locator(".turn.assistant .text").last.inner_text()


def test_chat_goes_on(page) -> None:
    ask(page, "What is the capital of France?")
    assert "Paris" in last_answer(page)
    assert "tokens/s" in page.locator(".turn.assistant .foot").last.inner_text()
    ask(page, "What is 127 + 385?")
    assert "512" in last_answer(page)
    assert page.locator(".turn").count() == 4
    shoot(page, "chat")
    page.click("#clear")
    assert page.locator(".turn").count() == 0


def test_probabilities_on_hover_and_focus(page) -> None:
    page.click("#settings summary")
    page.fill("#temperature", "1")
    page.fill("#max_tokens", "120")
    page.check("#logprobs")
    ask(page, "Tell me a short story about a cat.")
    tokens = page.locator(".token")
    assert tokens.count() > 5
    tokens.nth(3).hover()
    assert page.locator("#tip").is_visible() and "%" in page.locator("#tip").inner_text()
    shoot(page, "probabilities")
    tokens.nth(4).focus()
    assert page.locator("#tip").is_visible()
    assert "".join(tokens.all_text_contents()).strip() == last_answer(page).strip()


def test_stop_keeps_what_came(page, server: Running) -> None:
    page.click("#settings summary")
    page.fill("#temperature", "2")
    page.fill("#max_tokens", "4000")
    page.fill("#system", "You write long stories.")
    page.fill("#prompt", "Tell me a long story.")
    page.press("#prompt", "Enter")
    until(page, "document.querySelector('.turn.assistant .text')?.textContent.length > 0")
    page.keyboard.press("Escape")
    page.wait_for_selector("#send:visible")
    assert last_answer(page)
    page.wait_for_timeout(300)
    assert server.ask("GET", "/load")[1]["server_load"] == 0


def test_a_bad_setting_is_told_and_harms_nothing(page) -> None:
    page.click("#settings summary")
    page.fill("#top_p", "7")
    ask(page, "Hello")
    assert "top_p" in last_answer(page)
    page.faults = [fault for fault in page.faults if "400" not in fault]  # the browser's own line about the status
    page.fill("#top_p", "1")
    ask(page, "What is the capital of Japan?")
    assert "Tokyo" in last_answer(page)


def keep_busy(server: Running, stop: threading.Event) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 3000, "ignore_eos": True, "temperature": 1.0}
    for _ in server.stream("/v1/completions", **body):
        if stop.is_set():
            return


def test_dashboard_and_requests(page, server: Running) -> None:
    stop = threading.Event()
    busy = [threading.Thread(target=keep_busy, args=(server, stop)) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        page.keyboard.press("Alt+2")
        until(page, "Number(document.querySelector('#tiles .value').textContent) >= 3")
        page.wait_for_timeout(4000)
        assert int(page.locator("#tiles .value").nth(2).inner_text()) > 0
        for canvas in ("timeline", "throughput", "load", "ttft", "itl", "blocks"):
            drawn = (
                f"new Set(document.getElementById('{canvas}').getContext('2d').getImageData(0, 0, 300, 100).data).size"
            )
            assert page.evaluate(drawn) > 3, f"{canvas} is empty"
        shoot(page, "dashboard")
        page.click("#theme")
        page.wait_for_timeout(1200)
        shoot(page, "dashboard-dark")
        page.click("#theme")
        page.keyboard.press("Alt+3")
        until(page, "document.querySelectorAll('#rows tr').length === 3")
        shoot(page, "requests")
        page.locator("#rows button").first.click()
        until(page, "document.querySelectorAll('#rows tr').length === 2")
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    page.wait_for_selector("#none:visible")


def test_chinese_and_phone(browser, server: Running) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN", color_scheme="dark")
    context.add_init_script(f"sessionStorage.setItem('vllm-key', '{KEY}')")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#status.good")
    assert page.locator("#send").inner_text() == "发送"
    ask(page, "法国的首都是哪里？")
    assert "巴黎" in last_answer(page)
    shoot(page, "phone-zh")
    for view in ("chat", "dashboard", "requests"):
        page.click(f"#tab-{view}")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} is wider than the phone"
    page.click("#language")
    assert page.locator("#tab-chat").inner_text() == "Chat"
    context.close()


def test_the_key_is_asked_for(browser, server: Running) -> None:
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.wait_for_selector("#status.good")
    context.close()
