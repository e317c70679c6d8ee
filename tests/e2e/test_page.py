"""The page in a real browser: it chats, stops, shows probabilities, charts, lists and cancels, in two languages."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.http_server import KEY, Running, serving, wait_for

pytestmark = pytest.mark.slow  # a browser; made in `make e2e`
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing(what: str) -> NoReturn:
    """A skip for a user, a failure in CI."""
    assert not os.environ.get("CI"), what
    pytest.skip(what)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("page"), "--served-model-name", "tiny") as it:
        yield it


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright here: pip install playwright")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        missing("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
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
    page.focus("#clear")
    tokens.first.focus()
    assert page.locator("#tip").is_visible()
    assert page.locator(".token[tabindex='0']").count() == 1  # one stop of the Tab key, however long the answer
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.token')[1]")
    assert "".join(tokens.all_text_contents()).strip() == last_answer(page).strip()
    page.evaluate("dispatchEvent(new Event('beforeunload'))")
    plain = page.evaluate("JSON.parse(sessionStorage.getItem('vllm-chat')).at(-1).content")
    assert "".join(tokens.all_text_contents()) == plain


SPLITS = """async seed => {
  const { Aligner } = await import("/page/files/tokens.js");
  const random = (n) => Math.floor((seed = (seed * 1103515245 + 12345) % 2147483648) / 65536) % n;
  const words = ["he", " ", "cried", " cried", ".", "\\n", "\\n\\n", "  ", "I", "'m", " a", "a", "你", " <", "think"];
  const faults = [];
  for (let run = 0; run < 300; run += 1) {
    const tokens = [], said = []; // said: text of the token in the answer; "" for thoughts and tags
    for (let n = 1 + random(14); n; n -= 1) {
      if (random(8) === 0) { // a character of three tokens, the first with a space
        for (const [part, ...bytes] of [["", 0x20, 0xe9], ["", 0xbe], [" 龙", 0x99]]) {
          said.push(part);
          tokens.push({ token: "\\ufffd", bytes });
        }
      } else {
        said.push(words[random(words.length)]);
        tokens.push({ token: said.at(-1), bytes: [...new TextEncoder().encode(said.at(-1))] });
      }
    }
    const all = said.join(""), cut = random(4) ? all.length : random(all.length + 1); // a stop string cuts the end
    const aligner = new Aligner(), pieces = [], events = [];
    for (let at = 0, shown = 0; at < tokens.length;) { // events: tokens, and text that may lag behind them
      const upto = Math.min(tokens.length, at + 1 + random(4));
      const end = Math.min(cut, said.slice(0, upto).join("").length);
      const text = Math.max(shown, end - random(3) * random(4));
      pieces.push(...aligner.add(all.slice(shown, text), tokens.slice(at, upto)));
      events.push([all.slice(shown, text), tokens.slice(at, upto).map((one) => one.token)]);
      [at, shown] = [upto, text];
      if (at === tokens.length) pieces.push(...aligner.add(all.slice(shown, cut), []));
    }
    pieces.push(...aligner.add("", [], true));
    const joined = pieces.map((one) => one.text).join("");
    if (joined !== all.slice(0, cut)) faults.push([events, all.slice(0, cut), joined]);
    const bare = pieces.filter((one) => !one.tokens.length);
    if (bare.length) faults.push(["no colour", JSON.stringify(events), bare]);
  }
  return faults;
}"""
OTHERS = """async () => {
  const { Aligner } = await import("/page/files/tokens.js");
  const named = (said) => said.map((token) => ({ token, bytes: [...new TextEncoder().encode(token)] }));
  const run = (...events) => {
    const aligner = new Aligner(), pieces = [];
    for (const [text, said] of events) pieces.push(...aligner.add(text, named(said)));
    pieces.push(...aligner.add("", [], true));
    return pieces.map((one) => `${one.text}|${one.tokens.map((token) => token.token)}`);
  };
  return [
    run(["he", ["he"]], ["", [" "]], [" cried", ["cried"]]),
    run(["", ["</", "think", ">"]], ["Hello", ["\\n\\n", "Hello"]], [" you", [" you"]]),
    run(["Hello", [" Hello"]], [" you", ["you"]], ["!", []]),
    run([" cr", [" cried"]]),
    run(["x", ["y"]], ["z", ["z"]]),
  ];
}"""


def test_coloured_tokens_together_are_the_answer(page) -> None:
    """Whatever the events: several tokens in one, text later than its tokens, characters of several tokens."""
    for seed in range(1, 6):
        faults = page.evaluate(SPLITS, seed)
        assert not faults, faults[0]
    assert page.evaluate(OTHERS) == [
        ["he|he", " | ", "cried|cried"],
        ["Hello|Hello", " you| you"],
        ["Hello| Hello", " you|you", "!|"],
        [" cr| cried"],
        ["x|", "z|z"],
    ]


def test_tokens_told_before_their_text_are_coloured_too(page) -> None:
    """White space that may stand before a call comes with the text behind it; thoughts have tokens of their own."""

    def event(delta: dict, *tokens: str) -> str:
        told = [{"token": one, "logprob": -0.5, "bytes": list(one.encode()), "top_logprobs": []} for one in tokens]
        choice = {"index": 0, "delta": delta, "logprobs": {"content": told}, "finish_reason": None}
        return f"data: {json.dumps({'choices': [choice]})}\n\n"

    events = [
        event({"role": "assistant", "content": ""}),
        event({"reasoning": "he said"}, "he", " said"),
        event({}, "</think>"),
        event({"content": "he"}, "he"),
        event({}, " "),
        event({"content": " cried"}, "cried"),
        event({"content": " a", "reasoning": ""}, " a"),
        event({"content": "loud."}, "loud", "."),
    ]
    body = "".join(events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    ask(page, "How did he say it?")
    assert page.locator(".turn.assistant .text").last.text_content() == "he cried aloud."
    assert page.locator(".token").all_text_contents() == ["he", " ", "cried", " a", "loud", "."]


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
    assert "top_p" in page.locator(".failed").inner_text()
    page.faults = [fault for fault in page.faults if "400" not in fault]  # the browser's own line about the status
    page.fill("#top_p", "1")
    ask(page, "What is the capital of Japan?")
    assert "Tokyo" in last_answer(page)


HOSTILE = """# A title <img src=x onerror=alert(1)>
**Bold**, *slanted*, `a <b>`, 2*3*4, [a link](https://example.org/a) and [none](javascript:alert(2)).

- one
  - under it
1. first

```python
print("<script>alert(3)</script>")
```
| a | b |
|---|---|
| 1 | 2 |"""


def test_what_a_model_writes_is_shown_and_never_run(page) -> None:
    told = [{"role": "user", "content": "<b>Show</b>"}, {"role": "assistant", "content": HOSTILE}]
    page.evaluate("told => { onbeforeunload = null; window.told = told; }", told)
    page.evaluate("addEventListener('beforeunload', () => sessionStorage.setItem('vllm-chat', JSON.stringify(told)))")
    page.reload()
    page.wait_for_selector(".rich table")
    found = "names => names.map((name) => document.querySelectorAll(`.turn ${name}`).length)"
    names = ["h3", "strong", "em", "ul ul li", "ol li", "pre", "td", "a", "img", "script", ".user b"]
    assert page.evaluate(found, names) == [1, 1, 1, 1, 1, 1, 2, 1, 0, 0, 0]
    assert page.locator(".turn a").get_attribute("href") == "https://example.org/a"
    assert "2*3*4" in last_answer(page) and "javascript:alert(2)" in last_answer(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(".code button")
    assert page.evaluate("navigator.clipboard.readText()") == 'print("<script>alert(3)</script>")'
    page.locator(".turn.assistant .foot button").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == HOSTILE
    shoot(page, "markdown")


def test_thoughts_tools_and_another_try(page) -> None:
    page.click("#settings summary")
    page.fill("#temperature", "0")
    page.check("#think")
    ask(page, "What is 17 + 25?")
    thoughts = page.locator("details[data-kind=thought]")
    assert thoughts.get_attribute("open") is None and "42" in thoughts.locator("div").text_content()
    assert last_answer(page) == "17 + 25 = 42"
    page.click(".retry")
    page.wait_for_selector(".retry")
    assert last_answer(page) == "17 + 25 = 42" and page.locator(".turn").count() == 2
    page.reload()
    page.wait_for_selector("#status.good")
    assert last_answer(page) == "17 + 25 = 42" and page.locator(".turn").count() == 2  # it outlives a reload
    page.click("#clear")
    page.uncheck("#think") if page.locator("#think").is_visible() else page.click("#settings summary")
    page.uncheck("#think")
    city = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    page.fill("#tools", f'[{{"name": "get_weather", "description": "Get the weather", "parameters": {city}}}]')
    ask(page, "What is the weather in Paris?")
    call = page.locator("details[data-kind=call-0]")
    assert "get_weather" in call.inner_text() and '"city": "Paris"' in call.inner_text()
    assert "get_weather" in page.locator("#prompt").get_attribute("placeholder")
    ask(page, '{"temperature": 21, "condition": "sunny"}')
    assert "21" in last_answer(page)
    page.fill("#tools", "[oops")
    ask(page, "Hello")
    assert "JSON" in page.locator(".failed").inner_text()


def test_the_keyboard_is_enough(page) -> None:
    """Without a pointer: a question, the settings, another view and back."""
    page.keyboard.type("What is the capital of France?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".retry")
    assert "Paris" in last_answer(page)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator("#settings[open]").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.type("You are kind.")
    assert page.input_value("#system") == "You are kind."
    page.keyboard.press("Alt+3")
    page.focus("#tab-requests")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#dashboard").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#chat").is_visible()


def test_a_reader_who_went_up_is_left_there(page) -> None:
    page.set_viewport_size({"width": 700, "height": 420})
    for _ in range(3):
        ask(page, "Tell me a short story about a cat.")
    page.wait_for_timeout(300)
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.wait_for_selector("#down:visible")
    page.click("#down")
    page.wait_for_selector("#down", state="hidden")
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.wait_for_selector("#down:visible")
    page.evaluate("document.querySelector('.retry').click()")
    page.wait_for_timeout(200)
    assert page.evaluate("document.getElementById('log').scrollTop") > 0  # a new question goes to the end
    page.wait_for_selector(".retry")


def test_a_server_that_is_gone_is_told_and_comes_back(browser, tmp_path: Path) -> None:
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    with serving(tmp_path, keys=()) as server:
        port = server.port
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#status.good")
        page.click("#settings summary")
        page.fill("#max_tokens", "3000")
        page.fill("#temperature", "2")
        goes_on = "[...document.querySelectorAll('.turn.assistant .text')].at(-1)?.textContent.length > 30"
        is_over = "!document.getElementById('send').hidden"
        for _ in range(20):  # at this temperature an answer may be short
            page.fill("#prompt", "Tell me a long story.")
            page.press("#prompt", "Enter")
            until(page, f"{goes_on} || {is_over}")
            if not page.evaluate(is_over):
                break
        server.process.kill()
        page.wait_for_selector(".failed")
        assert len(last_answer(page)) > 30  # what had come stays
        page.wait_for_selector("#status.bad")
        ask(page, "Are you there?")
        assert "does not answer" in page.locator(".failed").last.inner_text()
    with serving(tmp_path, "--port", str(port), keys=()):
        page.wait_for_selector("#status.good")
        page.fill("#max_tokens", "40")
        page.click(".retry")
        page.wait_for_selector(".retry")
        assert last_answer(page)
    context.close()


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
