"""The hub that models come from: reachable, through which proxy, with which token. Never red: folders need no hub."""

import socket
import threading
from urllib.parse import SplitResult, urlsplit

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("hub",)
ORDER = 120
_SECONDS = 3.0
_MIRROR = "export HF_ENDPOINT=https://hf-mirror.com   # a mirror; or HTTPS_PROXY=...; or HF_HUB_OFFLINE=1"
_HAS_TOKEN = ("a token is set", "已设置令牌")
_NO_TOKEN = ("no token (gated models need one: hf auth login)", "没有令牌（受限模型需要：hf auth login）")
EXAMPLES = {"mend": _MIRROR}
LINES = {
    "fine": Line("green", "{host} answers{via}; {token}", "{host} 可访问{via}；{token_zh}"),
    "offline": Line("green", "offline by choice ({variable})", "已选择离线（{variable}）"),
    "bad-endpoint": Line(
        "yellow",
        "{variable}={value!r} is not an address that starts with https:// or http://",
        "{variable}={value!r} 不是以 https:// 或 http:// 开头的地址",
        "export {variable}=https://{guess}",
    ),
    "unreachable": Line(
        "yellow",
        "{host} does not answer: {problem}; models in folders and in the cache still work",
        "{host} 无法访问：{problem}；本地文件夹和缓存中的模型仍可使用",
        "{mend}",
    ),
    "proxy": Line(
        "yellow",
        "{variable} names the proxy {proxy}, which does not answer: {problem}",
        "{variable} 指定的代理 {proxy} 没有响应：{problem}",
        "unset {variable}   # or name the right proxy",
    ),
    "bad-token": Line(
        "yellow",
        "the token in {variable} is not of the form hf_... (it has {length} characters, {why})",
        "{variable} 中的令牌不是 hf_... 的形式（{length} 个字符，{why_zh}）",
        "export {variable}=hf_...   # from https://huggingface.co/settings/tokens",
    ),
}


def check(machine: Machine) -> Says:
    """The address, the way to it, the token."""
    variable = "MODELSCOPE_DOMAIN" if env.is_set("VLLM_USE_MODELSCOPE") else "HF_ENDPOINT"
    default = "https://modelscope.cn" if variable == "MODELSCOPE_DOMAIN" else "https://huggingface.co"
    said = env.text(variable) or default
    if variable == "MODELSCOPE_DOMAIN" and "://" not in said:
        said = f"https://{said}"
    yield from _token()
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(name)), None)
    if offline:
        yield "offline", {"variable": offline}
        return
    url = _split(said)
    if url is None:
        shown = said.rpartition("@")[2]  # why: what stands before an @ may be a password
        yield "bad-endpoint", {"variable": variable, "value": shown, "guess": shown.rpartition("//")[2]}
        return
    yield from _reach(url, variable, env.text(variable) is not None)


def _reach(url: SplitResult, variable: str, is_chosen: bool) -> Says:
    host, name = url.hostname or "", _proxy(url)
    if name:
        proxy = _split(env.text(name) or "") or _split(f"http://{env.text(name)}")
        # why: a proxy's address may hold a password; only its host and port are ever shown.
        shown = f"{proxy.hostname}:{proxy.port or 80}" if proxy else "(unreadable)"
        problem = _connect(proxy) if proxy else "not an address"
        if problem:
            yield "proxy", {"variable": name, "proxy": shown, "problem": problem}
            return
        via = f" (proxy {shown})"
    else:
        problem, via = _connect(url), ""
        if problem:
            mend = f"unset {variable}" if is_chosen else _MIRROR
            yield "unreachable", {"host": host, "problem": problem, "mend": mend}
            return
    has = _token_name() is not None
    token, token_zh = _HAS_TOKEN if has else _NO_TOKEN
    yield "fine", {"host": host, "via": via, "token": token, "token_zh": token_zh}


def _token() -> Says:
    name = _token_name()
    value = (env.text(name) or "") if name else ""
    if name and (not value.startswith("hf_") or value != value.strip() or " " in value):
        has_space = value.strip().startswith("hf_")
        why, why_zh = ("spaces in or around it", "含有空格") if has_space else ("another beginning", "开头不同")
        yield "bad-token", {"variable": name, "length": len(value), "why": why, "why_zh": why_zh}


def _token_name() -> str | None:
    return next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if env.text(name)), None)


def _is_on(name: str) -> bool:
    return (env.text(name) or "").strip().lower() in ("1", "true", "yes", "on")


def _split(text: str) -> SplitResult | None:
    """An http(s) address in parts; None for anything else."""
    try:
        url = urlsplit(text)
        # why: reading a port that is no number raises.
        return url if url.scheme in ("http", "https") and url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _proxy(url: SplitResult) -> str | None:
    """The variable that names the proxy for this address, None where there is none."""
    spared = [part.strip().lstrip("*.") for part in (env.text("NO_PROXY") or env.text("no_proxy") or "").split(",")]
    host = url.hostname or ""
    if any(part and (host == part or host.endswith(f".{part}")) for part in spared):
        return None
    names = (f"{url.scheme}_proxy", f"{url.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if env.text(name)), None)


def _connect(url: SplitResult) -> str:
    """Why no connection can be made, or empty."""
    address = (url.hostname, url.port or (443 if url.scheme == "https" else 80))
    problem = [f"no answer within {2 * _SECONDS:.0f} s"]

    def connect() -> None:
        try:
            socket.create_connection(address, _SECONDS).close()
            problem[0] = ""
        except OSError as error:
            problem[0] = (error.strerror or str(error))[:80]

    # why: looking up a name has no time limit of its own, and a dead name server takes a minute.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(2 * _SECONDS)
    return problem[0]
